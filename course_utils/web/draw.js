// A box to draw with, in any page:
//
//     <div class="draw-box" data-model="draw/model/"></div>
//     <script type="module" src="draw/draw.js"></script>
//
// data-model: where the exported model is. data-gallery: where ready pictures are; none: gallery/ beside the model.
// It speaks Chinese in a page, or a part of one, that does: <html lang="zh-CN">; else English.

import { mapOf, shaded } from "./attention.js";
import { isChinese, requireEnglish, toEnglish } from "./chinese.js";
import { encodePng, parameters } from "./png.js";
import { advice } from "./prompts.js";
import { fileName, fromHash, read, tidy, toHash } from "./settings.js";
import { Tokenizer } from "./tokenizer.js";
import { speaker } from "./words.js";

const MOST_RANDOM_SEED = 9999; // of "Another seed": short enough to be told to somebody
const RUNTIME_BYTES = 15e6; // of what runs the model, about
// A module of WebAssembly with one instruction for four numbers at once, which the runtime needs.
const SIMD = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
];

let number = 0; // of boxes on this page

/** Turn an element into a box to draw with. */
export async function mount(box) {
  addStyle();
  const language = box.closest("[lang]")?.lang || "en";
  const say = speaker(language);
  const model = new URL(box.dataset.model, document.baseURI);
  const gallery = new URL(box.dataset.gallery ?? new URL("../gallery/", model), document.baseURI);
  const pictures = await json(new URL("pictures.json", gallery)).catch(() => []);
  if (!canDraw()) {
    return showGallery(box, gallery, pictures, say("This browser cannot run the model, which needs WebAssembly."), say);
  }
  let description;
  try {
    description = await json(new URL("model.json", model));
  } catch (error) {
    const why = say("The model cannot be loaded ({reason}).", { reason: error.message });
    return showGallery(box, gallery, pictures, why, say);
  }
  return new DrawBox(box, model, description, gallery, pictures, language);
}

function megabytes(bytes) {
  return (bytes / 1e6).toFixed(0);
}

function canDraw() {
  return typeof WebAssembly === "object" && WebAssembly.validate(new Uint8Array(SIMD)) && typeof Worker === "function";
}

function addStyle() {
  const href = new URL("draw.css", import.meta.url).href;
  if ([...document.querySelectorAll("link[rel=stylesheet]")].some((link) => link.href === href)) return;
  document.head.append(element("link", { rel: "stylesheet", href }));
}

async function json(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url.pathname}: ${response.status}`);
  return response.json();
}

/** An element with properties (those with a dash are attributes) and what it holds. */
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "for") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

function thumbnail(gallery, { file, prompt }) {
  return element("img", { src: new URL(file, gallery).href, alt: "", width: 64, height: 64, title: prompt });
}

/** Ready pictures in place of the box, below one sentence that says why. */
function showGallery(box, gallery, pictures, why, say) {
  const sentence = pictures.length ? say("{why} Here are pictures that it drew elsewhere.", { why }) : why;
  const figures = pictures.map((one) =>
    element("figure", {}, thumbnail(gallery, one), element("figcaption", { textContent: one.prompt })),
  );
  box.classList.add("draw-box");
  box.replaceChildren(
    element("p", { className: "message", role: "status", textContent: sentence }),
    element("div", { className: "ready" }, ...figures),
  );
}

class DrawBox {
  constructor(box, model, description, gallery, pictures, language) {
    Object.assign(this, { box, model, description, gallery, language, say: speaker(language) });
    this.tokenizer = new Tokenizer(description.tokenizer);
    this.id = ++number;
    this.run = 0; // of pictures, so that what an older one still says is not heeded
    this.worker = null;
    this.drawn = null; // { settings, pixels, side, maps } of the picture that is shown
    this.build(pictures);
    this.listen();
    if (this.id === 1) {
      addEventListener("hashchange", () => this.follow());
      this.follow();
    }
  }

  build(pictures) {
    const { say } = this;
    const { defaults, most, side } = this.description;
    const id = (name) => `draw-box-${this.id}-${name}`;
    const field = (name, label, properties) => {
      this[name] = element("input", { id: id(name), name, autocomplete: "off", ...properties });
      const title = element("label", { for: id(name), textContent: label });
      return element("div", { className: "field" }, title, this[name]);
    };
    const button = (name, label, properties) => {
      this[name] = element("button", { type: "button", textContent: label, ...properties });
      return this[name];
    };
    const whole = { type: "number", inputMode: "numeric", step: "1" };
    const any = { type: "number", inputMode: "decimal", step: "any" };
    const first = this.box.dataset.prompt ?? pictures[0]?.prompt ?? "a cute corgi puppy sitting on the grass";

    this.canvas = element("canvas", { width: side, height: side, role: "img", "aria-label": say("No picture yet") });
    this.bar = element("progress", { max: 1, value: 0, "aria-label": say("Progress") });
    this.message = element("p", { className: "message", role: "status", "aria-live": "polite" });
    this.notes = element("ul", { className: "notes", id: id("notes"), "aria-live": "polite" });
    this.form = element(
      "form",
      { noValidate: true },
      field("prompt", say("Prompt"), { type: "text", value: first, "aria-describedby": id("notes") }),
      this.notes,
      element(
        "div",
        { className: "settings" },
        field("seed", say("Seed"), { ...whole, min: 0, max: most.seed, value: defaults.seed }),
        button("another", say("Another seed")),
        field("steps", say("Steps"), { ...whole, min: 1, max: most.steps, value: defaults.steps }),
        field("guidance", say("Guidance"), { ...any, min: 0, max: most.guidance, value: defaults.guidance }),
      ),
      element(
        "div",
        { className: "actions" },
        button("go", say("Draw"), { type: "submit", className: "go" }),
        button("halt", say("Stop"), { className: "halt", disabled: true }),
      ),
      this.message,
    );
    this.examples = pictures.map((one) =>
      element(
        "button",
        { type: "button", "aria-label": say("Draw: {prompt}", one), title: one.prompt, onclick: () => this.take(one) },
        thumbnail(this.gallery, one),
      ),
    );
    const title = element("p", { className: "title", id: id("examples"), textContent: say("Examples") });
    const row = element("div", { className: "row" }, ...this.examples);
    const examples = element("div", { className: "examples", role: "group", "aria-labelledby": title.id }, title, row);
    const keep = element(
      "div",
      { className: "actions" },
      button("save", say("Download PNG"), { disabled: true }),
      button("share", say("Copy link"), { disabled: true }),
    );
    this.words = element("div", { className: "words", role: "group", "aria-label": say("Attention to a word") });
    this.box.classList.add("draw-box");
    this.box.replaceChildren(
      element("div", { className: "picture" }, this.canvas, this.bar, this.words, keep),
      element("div", { className: "controls" }, this.form, ...(pictures.length ? [examples] : [])),
    );
    this.warn();
    if (pictures.length) this.begin(pictures[0]);
  }

  /** Show a ready picture until one is drawn. */
  async begin({ file, prompt }) {
    const ready = element("img", { src: new URL(file, this.gallery).href });
    await ready.decode();
    if (this.run) return;
    this.canvas.getContext("2d").drawImage(ready, 0, 0, this.canvas.width, this.canvas.height);
    this.canvas.setAttribute("aria-label", prompt);
    if (this.message.textContent) return; // of a link that asks for something else
    const size = Object.values(this.description.bytes).reduce((sum, bytes) => sum + bytes, RUNTIME_BYTES);
    const { say } = this;
    this.tell(
      say("A picture to begin with. The first that you draw loads the model, {size} MB.", { size: megabytes(size) }),
    );
  }

  listen() {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.draw();
    });
    // A Chinese word is typed by several keys, which say nothing until it is there.
    this.prompt.addEventListener("input", ({ isComposing }) => isComposing || this.warn());
    this.prompt.addEventListener("compositionend", () => this.warn());
    this.another.addEventListener("click", () => {
      this.seed.value = Math.floor(Math.random() * (MOST_RANDOM_SEED + 1));
      this.draw();
    });
    this.halt.addEventListener("click", () => this.stop());
    this.save.addEventListener("click", () => this.download());
    this.share.addEventListener("click", () => this.copyLink());
  }

  /** Take settings from the address, and draw with them. */
  follow() {
    const given = fromHash(location.hash);
    if (given) this.take(given);
  }

  take(settings) {
    for (const name of ["prompt", "seed", "steps", "guidance"]) {
      this[name].value = settings[name] ?? this.description.defaults[name];
    }
    this.warn();
    this.draw();
  }

  /** What should be known of the prompt: what is drawn for it if it is Chinese, and what the model cannot read. */
  warn() {
    const { say } = this;
    const prompt = tidy(this.prompt.value);
    const english = isChinese(prompt) ? toEnglish(prompt, this.description.chinese) : null;
    const drawn = english ? english.text : this.prompt.value;
    const sentences = [];
    if (english?.subjects) {
      sentences.push(say("The model was trained on English captions, so it draws '{prompt}'.", { prompt: drawn }));
    }
    if (english?.unknown.length) {
      sentences.push(say("Not in the course's dictionary: {words}.", { words: english.unknown.join("、") }));
    }
    if (english ? english.subjects : prompt) sentences.push(...advice(this.tokenizer, drawn, say));
    this.notes.classList.toggle("drawn", Boolean(english?.subjects)); // the first says no fault
    this.notes.replaceChildren(...sentences.map((textContent) => element("li", { textContent })));
  }

  tell(text, fault = false) {
    this.message.textContent = text;
    this.message.classList.toggle("fault", fault);
  }

  draw() {
    const { say } = this;
    let settings; // in English, for the picture, its link and its file
    try {
      const { prompt, seed, steps, guidance } = this;
      const typed = { prompt: prompt.value, seed: seed.value, steps: steps.value, guidance: guidance.value };
      settings = read(typed, this.description.most, say);
      if (isChinese(settings.prompt)) {
        settings.prompt = requireEnglish(settings.prompt, this.description.chinese, say).text;
      }
    } catch (error) {
      return this.tell(error.message, true);
    }
    if (!this.worker) {
      this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
      this.worker.onmessage = ({ data }) => this.hear(data);
      this.worker.onerror = ({ message }) =>
        this.end(say("The model cannot be run ({reason}).", { reason: message ?? say("no reason") }), true);
      this.tell(say("Loading the model"));
    } else this.tell(say("Drawing"));
    this.settings = settings;
    this.words.replaceChildren();
    this.busy(true);
    const { model, language } = this;
    this.worker.postMessage({ kind: "draw", id: ++this.run, model: model.href, settings, language });
  }

  stop() {
    this.worker.postMessage({ kind: "stop" });
    this.run++;
    this.drawn = null;
    this.end(this.say("Stopped."));
  }

  /** A button for each word: where the picture attended to it. */
  offerWords() {
    const { say } = this;
    const { settings, maps } = this.drawn;
    const buttons = (maps ? this.tokenizer.words(settings.prompt) : []).map((one) => {
      const button = element("button", { type: "button", textContent: one.word, "aria-pressed": "false" });
      button.addEventListener("click", () => attend(one, button));
      return button;
    });
    const attend = (one, chosen) => {
      const on = chosen.getAttribute("aria-pressed") === "false";
      for (const button of buttons) button.setAttribute("aria-pressed", on && button === chosen);
      const { pixels, side } = this.drawn;
      const said = on ? say("Bright where the picture attended to “{word}”, on 8 × 8 places.", one) : "";
      const described = say("{prompt}. {said}", { prompt: settings.prompt, said }).trim();
      this.show({ pixels: on ? shaded(pixels, side, mapOf(maps, one)) : pixels, side }, described);
      this.tell(said);
    };
    const title = element("p", { className: "title", textContent: say("Show where it attended to") });
    this.words.replaceChildren(...(buttons.length ? [title, ...buttons] : []));
  }

  busy(busy) {
    const focused = this.box.contains(document.activeElement) ? document.activeElement : null;
    this.box.setAttribute("aria-busy", busy);
    this.halt.disabled = !busy;
    this.message.setAttribute("aria-live", busy ? "off" : "polite"); // a reader's voice need not tell each step
    for (const one of [this.go, this.another, ...this.examples]) one.disabled = busy;
    for (const one of [this.save, this.share]) one.disabled = busy || !this.drawn;
    this.bar.classList.toggle("shown", busy);
    this.bar.removeAttribute("value"); // until it is known how far it is
    // A button that is disabled loses the focus: it gets it back.
    if (busy) this.focused = focused;
    else if (document.activeElement === document.body) this.focused?.focus({ preventScroll: true });
  }

  end(text, fault = false) {
    this.busy(false);
    this.tell(text, fault);
  }

  /** What the worker says. */
  hear(data) {
    const { say } = this;
    if (data.kind === "loading") {
      if (this.halt.disabled) return; // it goes on after a stop, for the next picture
      this.bar.value = data.loaded / data.total;
      const [loaded, total] = [megabytes(data.loaded), megabytes(data.total)];
      this.tell(say("Loading the model: {loaded} of {total} MB", { loaded, total }));
    } else if (data.id !== this.run) {
      return;
    } else if (data.kind === "step") {
      this.bar.value = data.step / data.steps;
      const { step, steps } = data;
      this.tell(say("Step {step} of {steps}", { step, steps }));
      const { prompt } = this.settings;
      this.show(data, say("Preview after step {step} of {steps}: {prompt}", { step, steps, prompt }));
    } else if (data.kind === "picture") {
      this.drawn = { settings: this.settings, pixels: data.pixels, side: data.side, maps: data.maps };
      this.show(data, this.settings.prompt);
      this.offerWords();
      if (this.id === 1) history.replaceState(null, "", toHash(this.settings));
      this.end(this.howDrawn(data));
    } else {
      this.end(say("The picture cannot be drawn: {reason}.", { reason: data.message }), true);
    }
  }

  howDrawn({ device, threads, seconds: exact }) {
    const { say } = this;
    const seconds = exact.toFixed(1);
    if (device === "webgpu") return say("Drawn in {seconds} seconds on the graphics processor.", { seconds });
    if (threads === 1) return say("Drawn in {seconds} seconds on the processor.", { seconds });
    return say("Drawn in {seconds} seconds on the processor, by {threads} threads.", { seconds, threads });
  }

  show({ pixels, side }, description) {
    [this.canvas.width, this.canvas.height] = [side, side];
    this.canvas.getContext("2d").putImageData(new ImageData(pixels, side, side), 0, 0);
    this.canvas.classList.toggle("rough", side < this.description.side);
    this.canvas.setAttribute("aria-label", description);
  }

  async download() {
    const { settings, pixels, side } = this.drawn;
    const { sampler, name } = this.description;
    const bytes = await encodePng(pixels, side, parameters({ ...settings, sampler, side, model: name }));
    const url = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    element("a", { href: url, download: fileName(settings.prompt) }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  async copyLink() {
    const { say } = this;
    const link = new URL(toHash(this.drawn.settings), location.href).href;
    try {
      await navigator.clipboard.writeText(link);
      this.tell(say("The link is copied: it draws this picture again."));
    } catch {
      history.replaceState(null, "", link);
      this.tell(say("Copy the address of this page: it draws this picture again."));
    }
  }
}

for (const box of document.querySelectorAll(".draw-box")) mount(box);
