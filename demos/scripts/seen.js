// What is kept of a moment, drawn over the player. The page's script asks for it.
window.pvShow = seconds => trigger("click", { seconds });

const clean = () => document.querySelectorAll(".pv-mask").forEach(mask => mask.remove());

const draw = () => {
    clean();
    const told = element.querySelector(".pv-seen"), player = document.querySelector("#video video");
    const stage = told?.querySelector("[aria-pressed=true]");
    if (!stage) return;
    for (const part of told.querySelectorAll("[data-of]")) part.hidden = part.dataset.of !== stage.dataset.stage;
    if (!player?.videoWidth) return;
    const rows = Number(told.dataset.rows), columns = Number(told.dataset.columns);
    const mask = document.createElement("canvas"), around = player.parentElement;
    Object.assign(mask, { width: columns, height: rows, className: "pv-mask" });
    const brush = mask.getContext("2d"), kept = new Set(stage.dataset.kept.split(","));
    brush.fillStyle = "rgba(0, 0, 0, 0.75)";
    for (let place = 0; place < rows * columns; place++)
        if (!kept.has(String(place))) brush.fillRect(place % columns, Math.floor(place / columns), 1, 1);
    // the picture lies in the middle of the player, as large as it fits
    const box = player.getBoundingClientRect(), outer = around.getBoundingClientRect();
    const scale = Math.min(box.width / player.videoWidth, box.height / player.videoHeight);
    const width = scale * player.videoWidth, height = scale * player.videoHeight;
    Object.assign(mask.style, {
        left: `${box.left - outer.left + (box.width - width) / 2}px`,
        top: `${box.top - outer.top + (box.height - height) / 2}px`,
        width: `${width}px`, height: `${height}px`,
    });
    if (getComputedStyle(around).position === "static") around.style.position = "relative";
    around.append(mask);
    const over = () => {
        if (Math.abs(player.currentTime - Number(told.dataset.seconds)) < 1 && player.paused) return;
        player.removeEventListener("timeupdate", over);
        clean();
    };
    player.addEventListener("play", clean, { once: true });
    player.addEventListener("timeupdate", over);
};

element.addEventListener("click", event => {
    const chosen = event.target.closest("[data-stage]");
    for (const stage of chosen ? element.querySelectorAll("[data-stage]") : [])
        stage.setAttribute("aria-pressed", String(stage === chosen));
    if (chosen) draw();
    if (event.target.closest("[data-hide]")) {
        props.value = "";
        clean();
    }
});
watch("value", draw);
window.addEventListener("resize", draw);
