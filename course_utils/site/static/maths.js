// Draws each formula of the page, whose TeX Sphinx has left in it.
for (const place of document.querySelectorAll(".math")) {
  const displayMode = place.tagName === "DIV";
  katex.render(place.textContent, place, {displayMode, throwOnError: false});
}

// Sphinx marks the words of a search on the page, and stumbles over those in the titles of icons.
for (const title of document.querySelectorAll("svg title")) title.remove();
