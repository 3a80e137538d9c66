// Draws each formula of the page, whose TeX Sphinx has left in it.
for (const place of document.querySelectorAll(".math")) {
  const displayMode = place.tagName === "DIV";
  katex.render(place.textContent, place, {displayMode, throwOnError: false});
}
