element.addEventListener("click", event => {
    const chosen = event.target.closest("[data-ask]");
    if (chosen) trigger("click", { question: chosen.dataset.ask });
});
