"""More of `derived`: families whose decoders are not plain full attention, and those of which others have files."""

from __future__ import annotations

import derived as d
import transformers as tf
from families import (
    LLAVA_TEMPLATE,
    QWEN_IDS,
    QWEN_TEMPLATE,
    QWEN_TEXT,
    QWEN_TOKENS,
    QWEN_VISION,
    TEXT,
    TOWER,
    tokenizer,
)


def qwen3_vl_moe() -> d.Parts:
    model, processor = d.qwen3_vl()
    vision = model.config.vision_config.to_dict()
    text = dict(QWEN_TEXT, head_dim=16, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2)
    config = tf.Qwen3VLMoeConfig(text_config=text, vision_config=vision | dict(model_type=""), **QWEN_IDS)
    return tf.Qwen3VLMoeForConditionalGeneration(config), processor


def qwen3_5() -> d.Parts:
    _, processor = d.qwen3_vl()
    vision = dict(QWEN_VISION, depth=2, hidden_size=32, intermediate_size=64, out_hidden_size=TEXT["hidden_size"])
    vision |= dict(num_position_embeddings=64)
    text = dict(QWEN_TEXT, head_dim=16, linear_key_head_dim=8, linear_value_head_dim=8)
    text |= dict(linear_num_key_heads=2, linear_num_value_heads=4)
    config = tf.Qwen3_5Config(text_config=text, vision_config=vision, **QWEN_IDS)
    return tf.Qwen3_5ForConditionalGeneration(config), processor


def exaone4_5() -> d.Parts:
    vision = dict(QWEN_VISION, depth=2, hidden_size=32, intermediate_size=64, num_key_value_heads=1)
    vision |= dict(window_size=32, out_hidden_size=TEXT["hidden_size"], fullatt_block_indexes=[1])
    config = tf.Exaone4_5_Config(
        text_config=dict(TEXT, model_type="exaone4", sliding_window=64), vision_config=vision,
        image_token_id=190, video_token_id=191,
    )  # fmt: skip
    videos = d.of("qwen2_vl", "Qwen2VLVideoProcessor")(**d.PATCHES)
    words = tokenizer(QWEN_TOKENS, QWEN_TEMPLATE)
    kind = d.of("exaone4_5", "Exaone4_5_Processor")
    return tf.Exaone4_5_ForConditionalGeneration(config), kind(d.pictures(), words, videos)


def lfm3_vl() -> d.Parts:
    vision = dict(hidden_size=32, intermediate_size=64, patch_size=8, num_hidden_layers=4, num_attention_heads=4)
    vision |= dict(num_key_value_heads=2)
    kinds = ["conv", "conv", "full_attention", "conv", "sliding_attention", "full_attention"]
    text = dict(TEXT, head_dim=16, sliding_window=24, layer_types=kinds)
    config = tf.Lfm3VlConfig(text_config=text, vision_config=vision, projector_hidden_size=64, **QWEN_IDS)
    videos = d.of("qwen3_vl", "Qwen3VLVideoProcessor")(**d.PATCHES)
    words = tokenizer(QWEN_TOKENS, QWEN_TEMPLATE)
    return tf.Lfm3VlForConditionalGeneration(config), d.of("lfm3_vl", "Lfm3VlProcessor")(d.pictures(), words, videos)


def muse_glimmer() -> d.Parts:
    vision = dict(patch_size=8, pos_emb_height=8, pos_emb_width=8, num_attention_heads=2, num_hidden_layers=2)
    vision |= dict(hidden_size=32, intermediate_size=64, max_position_embeddings=64)
    text = dict(TEXT, head_dim=16, sliding_window=64)
    config = tf.MuseGlimmerConfig(
        text_config=text, vision_config=vision, image_token_id=190, video_token_id=191,
        out_hidden_size=32 * 4, projector_hidden_size=64,
    )  # fmt: skip
    tokens = ["<|patch|>", "<|video|>", "<|image_start|>", "<|image_end|>", "<|vid_start|>", "<|vid_end|>"]
    tokens += ["<|vid_frame_separator|>"]
    place = "<|vision_start|><|video_pad|><|vision_end|>"
    words = tokenizer(tokens, QWEN_TEMPLATE.replace(place, "<|video|>"))
    videos = d.of("muse_glimmer", "MuseGlimmerVideoProcessor")(patch_size=8)
    images = d.of("muse_glimmer", "MuseGlimmerImageProcessor")(patch_size=8)
    kind = d.of("muse_glimmer", "MuseGlimmerProcessor")
    return tf.MuseGlimmerForConditionalGeneration(config), kind(images, videos, words)


def molmo2() -> d.Parts:
    vision = dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )
    vision |= dict(head_dim=16, image_size=[48, 48], patch_size=8)
    adapter = dict(vision_feature_layer=[1, 0], hidden_size=32, num_attention_heads=2, num_key_value_heads=2)
    adapter |= dict(head_dim=16, intermediate_size=64, text_hidden_size=64)
    text = dict(TEXT, head_dim=16, vocab_size=190, additional_vocab_size=20)
    tokens = ["<im_start_>", "<im_end_>", "<im_patch>", "<im_col>", "<low_res_im_start>", "<|image|>", "<im_low>"]
    tokens += ["<frame_start>", "<frame_end>", "<|video|>"]
    config = tf.Molmo2Config(
        vision_config=vision, adapter_config=adapter, text_config=text, image_start_token_id=190,
        image_end_token_id=191, image_patch_id=192, low_res_image_start_token_id=194, frame_start_token_id=197,
        frame_end_token_id=198,
    )  # fmt: skip
    words = tokenizer(tokens, LLAVA_TEMPLATE.replace("<video>", "<|video|>"))
    words.eos_token = "<im_end_>"
    does = dict(do_resize=True, do_rescale=True, do_normalize=True)  # as its released files say
    videos = d.of("molmo2", "Molmo2VideoProcessor")(size={"height": 48, "width": 48}, patch_size=8, **does)
    images = d.of("molmo2", "Molmo2ImageProcessor")()
    return tf.Molmo2ForConditionalGeneration(config), d.of("molmo2", "Molmo2Processor")(images, videos, words)


def gemma4() -> d.Parts:
    vision = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, head_dim=16)
    vision |= dict(num_key_value_heads=2, patch_size=8, position_embedding_size=256)
    text = dict(TEXT, head_dim=16, sliding_window=64, vocab_size_per_layer_input=200, hidden_size_per_layer_input=0)
    text |= dict(pad_token_id=0)
    tokens = ["<|image|>", "<|video|>", "<boi>", "<eoi>", "<|audio|>", "<boa>", "<eoa>"]
    ids = dict(image_token_id=190, video_token_id=191, boi_token_id=192, eoi_token_id=193, audio_token_id=194)
    ids |= dict(boa_token_id=195, eoa_token_index=196)
    config = tf.Gemma4Config(text_config=text, vision_config=vision, **ids)
    place = "<|vision_start|><|video_pad|><|vision_end|>"
    words = tokenizer(tokens, QWEN_TEMPLATE.replace(place, "<|video|>"))
    d.name(words, image="<|image|>", boi="<boi>", eoi="<eoi>", audio="<|audio|>", boa="<boa>", eoa="<eoa>")
    words.pad_token = "<unk>"
    videos = d.of("gemma4", "Gemma4VideoProcessor")(patch_size=8)
    images, sound = d.of("gemma4", "Gemma4ImageProcessor")(patch_size=8), tf.Gemma4AudioFeatureExtractor()
    kind = d.of("gemma4", "Gemma4Processor")
    return tf.Gemma4ForConditionalGeneration(config), kind(sound, images, words, videos)


def minicpmv4_6() -> d.Parts:
    vision = dict(TOWER, patch_size=8, image_size=64, insert_layer_id=0)
    text = dict(TEXT, head_dim=16, linear_key_head_dim=8, linear_value_head_dim=8, model_type="qwen3_5_text")
    text |= dict(linear_num_key_heads=2, linear_num_value_heads=4)
    text |= dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0, mrope_section=[2, 3, 3]))
    config = tf.MiniCPMV4_6Config(
        text_config=text, vision_config=vision, insert_layer_id=0, image_token_id=190, video_token_id=191
    )
    tokens = [
        "<|image_pad|>",
        "<|video_pad|>",
        "<image>",
        "</image>",
        "<slice>",
        "</slice>",
        "<image_id>",
        "</image_id>",
    ]
    place = "<|vision_start|><|video_pad|><|vision_end|>"
    words = tokenizer(tokens, QWEN_TEMPLATE.replace(place, "<|video_pad|>"))
    d.name(words, image="<|image_pad|>", video="<|video_pad|>", image_start="<image>", image_end="</image>")
    d.name(words, slice_start="<slice>", slice_end="</slice>", image_id_start="<image_id>", image_id_end="</image_id>")
    words.pad_token = "<unk>"
    videos = d.of("minicpmv4_6", "MiniCPMV4_6VideoProcessor")(patch_size=8, scale_resolution=64, slice_mode=False)
    images = d.of("minicpmv4_6", "MiniCPMV4_6ImageProcessor")(patch_size=8, scale_resolution=64)
    kind = d.of("minicpmv4_6", "MiniCPMV4_6Processor")
    return tf.MiniCPMV4_6ForConditionalGeneration(config), kind(images, videos, words)


def glm46v() -> d.Parts:
    model, plain = d.glm4v()
    both = {part: getattr(model.config, part).to_dict() for part in ("text_config", "vision_config")}
    ids = {name: value for name, value in model.config.to_dict().items() if name.endswith("_token_id")}
    videos = d.of("glm46v", "Glm46VVideoProcessor")(**d.PATCHES)
    kind = d.of("glm46v", "Glm46VProcessor")
    model = tf.Glm46VForConditionalGeneration(tf.Glm46VConfig(**both, **ids))
    return model, kind(d.pictures(), plain.tokenizer, videos)


def glm4v_moe() -> d.Parts:
    model, processor = d.glm4v()
    text = model.config.text_config.to_dict() | dict(model_type="glm4v_moe_text", moe_intermediate_size=32)
    text |= dict(num_experts_per_tok=2, n_routed_experts=4, rope_parameters=dict(d.MROPE, partial_rotary_factor=1.0))
    vision = model.config.vision_config.to_dict() | dict(model_type="glm4v_moe_vision")
    ids = {key: value for key, value in model.config.to_dict().items() if key.endswith("_token_id")}
    config = tf.Glm4vMoeConfig(text_config=text, vision_config=vision, **ids)
    return tf.Glm4vMoeForConditionalGeneration(config), processor


def qwen3_5_moe() -> d.Parts:
    model, processor = qwen3_5()
    text = {k: v for k, v in model.config.text_config.to_dict().items() if k != "intermediate_size"}
    text |= dict(model_type="qwen3_5_moe_text", moe_intermediate_size=32, shared_expert_intermediate_size=32)
    text |= dict(num_experts=4, num_experts_per_tok=2)
    vision = model.config.vision_config.to_dict() | dict(model_type="qwen3_5_moe_vision")
    config = tf.Qwen3_5MoeConfig(text_config=text, vision_config=vision, **QWEN_IDS)
    return tf.Qwen3_5MoeForConditionalGeneration(config), processor


def muse_spark() -> d.Parts:
    plain, processor = muse_glimmer()
    vision = plain.config.vision_config.to_dict() | dict(model_type="muse_spark_vision")
    text = dict(TEXT, head_dim=16, sliding_window=64, moe_intermediate_size=32, num_local_experts=4, moe_hidden_size=32)
    text |= dict(num_experts_per_tok=2)
    sound = dict(hidden_sizes=[16, 16, 16, 16], depths=[1, 1, 1, 1], out_hidden_size=64)
    config = tf.MuseSparkConfig(
        text_config=text, vision_config=vision, audio_config=sound, image_token_id=190, video_token_id=191,
        audio_token_id=197, out_hidden_size=32 * 4, projector_hidden_size=64,
    )  # fmt: skip
    kind, old = d.of("muse_spark", "MuseSparkProcessor"), processor.tokenizer
    tokens = [token for token, number in sorted(old.get_vocab().items(), key=lambda each: each[1]) if number >= 190]
    words = tokenizer([*tokens, "<|audio|>", "<|soft_audio_start|>", "<|soft_audio_end|>"][:10], old.chat_template)
    ears = tf.MuseSparkFeatureExtractor()
    model = tf.MuseSparkForConditionalGeneration(config)
    return model, kind(processor.image_processor, processor.video_processor, words, ears)


def minicpmv4_7() -> d.Parts:
    plain, processor = minicpmv4_6()
    vision = plain.config.vision_config.to_dict() | dict(model_type="minicpmv4_7_vision")
    text = plain.config.text_config.to_dict()
    config = tf.MiniCPMV4_7Config(
        text_config=text, vision_config=vision, insert_layer_id=0, image_token_id=190, video_token_id=191
    )
    kind = d.of("minicpmv4_7", "MiniCPMV4_7Processor")
    model = tf.MiniCPMV4_7ForConditionalGeneration(config)
    return model, kind(processor.image_processor, processor.video_processor, processor.tokenizer)


def gemma4_unified() -> d.Parts:
    _, plain = gemma4()
    vision = dict(patch_size=8, mm_embed_dim=32, mm_posemb_size=64, output_proj_dims=32)
    text = dict(TEXT, head_dim=16, sliding_window=64, pad_token_id=0)
    ids = dict(image_token_id=190, video_token_id=191, boi_token_id=192, eoi_token_id=193, audio_token_id=194)
    ids |= dict(boa_token_id=195, eoa_token_index=196)
    config = tf.Gemma4UnifiedConfig(text_config=text, vision_config=vision, **ids)
    videos = d.of("gemma4_unified", "Gemma4UnifiedVideoProcessor")(patch_size=8)
    images = d.of("gemma4_unified", "Gemma4UnifiedImageProcessor")(patch_size=8)
    kind = d.of("gemma4_unified", "Gemma4UnifiedProcessor")
    model = tf.Gemma4UnifiedForConditionalGeneration(config)
    return model, kind(plain.feature_extractor, images, plain.tokenizer, videos)


def minicpm_ocr() -> d.Parts:
    vision = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, patch_size=8)
    vision |= dict(image_size=64, insert_layer_id=0)
    plain, processor = minicpmv4_6()
    text = {key: value for key, value in plain.config.text_config.to_dict().items() if key != "layer_types"}
    text |= dict(num_hidden_layers=8)
    config = tf.MiniCPMOcrConfig(
        text_config=text, vision_config=vision, insert_layer_id=0, image_token_id=190, video_token_id=191
    )
    videos = d.of("minicpm_ocr", "MiniCPMOcrVideoProcessor")(patch_size=8, scale_resolution=64, slice_mode=False)
    images = d.of("minicpm_ocr", "MiniCPMOcrImageProcessor")(patch_size=8, scale_resolution=64)
    kind = d.of("minicpm_ocr", "MiniCPMOcrProcessor")
    return tf.MiniCPMOcrForConditionalGeneration(config), kind(images, videos, processor.tokenizer)


def nemotron_h_omni() -> d.Parts:
    """As the released ones: Mamba, experts and attention, RADIO's tower over pairs of frames, and Parakeet's ears."""
    kinds = ["linear_attention", "mlp", "full_attention", "linear_attention", "moe"]
    kinds += ["full_attention", "linear_attention", "full_attention"]
    text = {key: value for key, value in TEXT.items() if key != "num_hidden_layers"}
    text |= dict(model_type="nemotron_h", layers_block_type=kinds, head_dim=16, mamba_num_heads=4, mamba_head_dim=16)
    text |= dict(ssm_state_size=8, n_groups=2, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)
    text |= dict(n_group=1, topk_group=1, moe_shared_expert_intermediate_size=32)
    vision = dict(model_type="radio", hidden_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=8)
    vision |= dict(image_size=64, max_img_size=128, video_temporal_patch_size=2)
    sound = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, num_mel_bins=80)
    sound |= dict(projection_hidden_size=32, projection_bias=False, subsampling_conv_channels=16)
    config = tf.NemotronH_Omni_Reasoning_V3_Config(
        text_config=text, vision_config=vision, audio_config=sound, vision_hidden_size=32, projector_hidden_size=64,
        image_token_id=190, video_token_id=191, audio_token_id=194,
    )  # fmt: skip
    tokens = ["<image>", "<video>", "<img>", "</img>", "<so_embedding>", "<so_start>", "<so_end>"]
    words = tokenizer(tokens, LLAVA_TEMPLATE)
    words.pad_token = "<unk>"
    norm = dict(norm_mean=[0.5, 0.4, 0.5], norm_std=[0.3, 0.3, 0.2])
    name = "NemotronH_Omni_Reasoning_V3"
    videos = d.of("nemotron_h_omni", f"{name}VideoProcessor")(patch_size=8, video_target_num_patches=24, **norm)
    images = d.of("nemotron_h_omni", f"{name}ImageProcessor")(patch_size=8)
    ears = tf.ParakeetFeatureExtractor()
    processor = d.of("nemotron_h_omni", f"{name}Processor")(images, videos, words, ears)
    return tf.NemotronH_Omni_Reasoning_V3(config), processor


def kimi_k25() -> d.Parts:
    """Four frames a step, over which its tower takes the mean; latents in the decoder."""
    latent = dict(q_lora_rank=24, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=12)
    experts = dict(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, n_group=1, topk_group=1)
    text = dict(TEXT, num_key_value_heads=4, model_type="deepseek_v3", first_k_dense_replace=1, **latent, **experts)
    vision = dict(TOWER, patch_size=8, pos_emb_height=8, pos_emb_width=8)
    ids = dict(image_token_id=190, video_token_id=191, vision_start_token_id=192, vision_end_token_id=194)
    config = tf.Kimi_K25Config(
        text_config=text, vision_config=vision, projection_hidden_size=32, tie_word_embeddings=False, **ids
    )
    tokens = ["<|media_pad|>", "<|kimi_k25_video_placeholder|>", "<|media_begin|>", "<|media_content|>"]
    place = "<|vision_start|><|video_pad|><|vision_end|>"
    words = tokenizer([*tokens, "<|media_end|>"], QWEN_TEMPLATE.replace(place, tokens[1]))
    videos = d.of("kimi_k25", "Kimi_K25VideoProcessor")(patch_size=8)
    images = d.of("kimi_k25", "Kimi_K25ImageProcessor")(patch_size=8)
    kind = d.of("kimi_k25", "Kimi_K25Processor")
    return tf.Kimi_K25ForConditionalGeneration(config), kind(images, words, videos)


d.PARTS.update(
    {
        make.__name__: make
        for make in (
            *(qwen3_vl_moe, qwen3_5, qwen3_5_moe, exaone4_5, lfm3_vl, muse_glimmer, muse_spark, molmo2, gemma4),
            *(gemma4_unified, minicpmv4_6, minicpmv4_7, glm46v, glm4v_moe, minicpm_ocr, nemotron_h_omni, kimi_k25),
        )
    }
)
for each in [each for each in d.PARTS if each not in tf.CONFIG_MAPPING]:  # older transformers lack some
    del d.PARTS[each]
