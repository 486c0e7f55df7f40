// Names for what the theme leaves without one, and the keyboard for tables that scroll.
document.addEventListener("DOMContentLoaded", () => {
  for (const toggle of document.querySelectorAll("summary .toctree-toggle")) {
    const link = toggle.closest("li").querySelector("a");
    toggle.parentElement.setAttribute("aria-label", `Pages under ${link ? link.textContent.trim() : "this"}`);
  }
  for (const table of document.querySelectorAll(".cell_output table")) table.tabIndex = 0;
});
