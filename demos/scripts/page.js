() => {
    // what a browser can't play gradio calls an error; the page's own panel says what is wrong, if anything is
    document.addEventListener("error", event => {
        if (event.target.tagName === "VIDEO") event.stopImmediatePropagation();
    }, true);

    // a button that names a moment shows it: in the player, if there is one, with what is kept of it
    document.addEventListener("click", event => {
        const chip = event.target.closest("[data-at]");
        if (!chip) return;
        const player = document.querySelector("#video video");
        if (player) {
            document.querySelector("#watch [role=tab]")?.click();
            player.pause();
            player.currentTime = Number(chip.dataset.at);
            player.scrollIntoView({ block: "nearest" });
        }
        window.pvShow?.(Number(chip.dataset.at));
    });

    // a text, or a file of the server, becomes a file of the visitor's
    window.pvSave = ({ name, text, path }) => {
        const link = document.createElement("a");
        link.href = path ? `gradio_api/file=${path}` : URL.createObjectURL(new Blob([text]));
        link.download = name;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    };

    // of the time line one part can be reached by Tab, and the others by the arrows
    document.addEventListener("keydown", event => {
        const way = { ArrowLeft: "previousElementSibling", ArrowRight: "nextElementSibling" }[event.key];
        const next = way && event.target.closest?.(".pv-stretch")?.[way];
        if (!next) return;
        event.preventDefault();
        event.target.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
    });

    // gradio reads a message's marks aloud, too
    const said = new MutationObserver(() => {
        for (const message of document.querySelectorAll('#chat [aria-label*="<"]'))
            message.setAttribute("aria-label", message.innerText.replaceAll("<", "‹"));
    });
    said.observe(document.body, { subtree: true, childList: true, attributeFilter: ["aria-label"] });

    // on a phone the answers lie above the pinned question, out of sight at first
    document.addEventListener("click", event => {
        if (event.target.closest("#ask, [data-ask]") && window.innerWidth <= 768)
            document.querySelector("#chat")?.scrollIntoView({ block: "end" });
    });
}
