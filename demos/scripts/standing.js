element.addEventListener("click", event => {
    const chosen = event.target.closest("[data-remove]");
    if (chosen) trigger("click", { key: chosen.dataset.remove });
});
