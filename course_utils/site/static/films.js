// The sliders of the book: a film of pictures that were drawn when the book was built.
for (const film of document.querySelectorAll(".film")) {
  const frames = JSON.parse(film.querySelector("script").textContent);
  const [slider, value, picture, sentence] = ["input", "output", "img", "small"].map((name) => film.querySelector(name));
  const address = (number) => `${film.dataset.images}/${number}.png`;
  const loadAll = () => frames.forEach((_, number) => { new Image().src = address(number); });
  const show = () => {
    const [at, said] = frames[slider.value];
    value.textContent = at;
    slider.setAttribute("aria-valuetext", at);
    picture.src = address(slider.value);
    picture.alt = sentence.textContent = said;
  };
  for (const event of ["pointerenter", "focus"]) slider.addEventListener(event, loadAll, { once: true });
  slider.addEventListener("input", show);
}
