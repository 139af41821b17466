() => {
    const find = selector => document.querySelector(selector);
    const notice = document.createElement("div");
    notice.id = "pv-notice";
    notice.setAttribute("role", "alert");
    document.body.append(notice);
    const say = text => { notice.textContent = text; };

    // -- files: of any kind and at any time, also where a video is shown; the server says what can't be watched ------
    const forwarded = new WeakSet();
    const place = async () => {
        let input;
        while (!(input = find("#video input[type=file]"))) {  // there is none beside a video or a recorder
            find("#video [aria-label='Upload file']")?.click();
            await new Promise(resolve => setTimeout(resolve, 50));
        }
        return input;
    };
    const open = async files => {
        if (!files.length) return;
        say(files.length > 1 ? `One video at a time: ${files[0].name} is taken, the others are not.` : "");
        const input = await place(), taken = new DataTransfer(), file = files[0];
        // gradio lets through what the browser calls a video, and nothing of which it does not know the kind
        const known = file.type.startsWith("video/");
        taken.items.add(known ? file : new File([file], file.name, { type: "video/x-any" }));
        input.files = taken.files;
        const change = new Event("change", { bubbles: true });
        forwarded.add(change);
        input.dispatchEvent(change);
    };
    const choose = () => {
        const input = document.createElement("input");
        input.type = "file";
        input.addEventListener("change", () => open([...input.files]));
        input.click();
    };
    document.addEventListener("change", event => {
        if (!event.target.matches("#video input[type=file]") || forwarded.has(event)) return;
        event.stopImmediatePropagation();
        open([...event.target.files]);
    }, true);
    document.addEventListener("click", event => {
        if (event.target.closest("#another")) choose();
        if (event.target.matches("#video input[type=file]")) event.target.removeAttribute("accept");
    }, true);
    const carries = event => [...(event.dataTransfer?.types ?? [])].includes("Files");
    document.addEventListener("dragover", event => { if (carries(event)) event.preventDefault(); }, true);
    document.addEventListener("drop", event => {
        if (!carries(event)) return;
        event.preventDefault();
        event.stopImmediatePropagation();
        find("#video [aria-dropeffect]")?.dispatchEvent(new DragEvent("dragleave"));  // or it looks dragged over for ever
        open([...event.dataTransfer.files]);
    }, true);

    // -- the camera: whoever ends the recording wants it off ---------------------------------------------------------
    document.addEventListener("click", event => {
        const running = event.target.closest("#camera button")?.querySelector("[title='stop recording'], [title='spinner']");
        if (running) setTimeout(() => ["#stop-watching", "#let-go"].forEach(name => find(name)?.click()));
    }, true);

    document.addEventListener("play", event => {  // a recorder has a camera on, of which the server knows nothing
        if (event.target.srcObject && event.target.closest("#video")) find("#clear").disabled = false;
    }, true);

    // -- the server: gone, and back again ----------------------------------------------------------------------------
    const { root, api_prefix } = window.gradio_config;
    let lost = false;
    setInterval(async () => {
        const answers = await fetch(`${root}${api_prefix}/app_id`).then(answer => answer.status < 500, () => false);
        if (answers && lost) location.reload();
        if (!answers && !lost) {
            say("The server does not answer. What you see is what was there last; once it answers, this page loads anew.");
        }
        lost = !answers;
        document.body.classList.toggle("pv-lost", lost);
    }, 5000);
}
