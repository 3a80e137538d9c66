// Draws beside the page, so that the page stays quick: loads ONNX Runtime Web and the networks once, then draws.
//
// To it:   { kind: "draw", id, model, settings, language }, { kind: "stop" }
// From it: { kind: "loading", loaded, total } in bytes, { kind: "step", id, step, steps, pixels, side },
//          { kind: "picture", id, pixels, side, maps, seconds, device, threads },
//          { kind: "fault", id, message }

import { Painter } from "./painter.js";
import { inSinglePrecision } from "./weights.js";
import { speaker } from "./words.js";

const RUNTIME = new URL("onnxruntime/", import.meta.url);
const SLOW = 400; // milliseconds: a graphics processor that takes longer for a step is left alone
// Threads need memory that they share, which a browser gives only to pages that are isolated from others.
const THREADS = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
const ERRORS = 3; // what the runtime writes to the console: errors, no warnings
let say = speaker();
let loading = null;
let wanted = null; // the id of what is to be drawn
let queue = Promise.resolve(); // the networks do one thing at a time

onmessage = ({ data }) => {
  wanted = data.kind === "draw" ? data.id : null;
  if (data.language) say = speaker(data.language);
  if (data.kind === "draw") queue = queue.then(() => draw(data));
};

async function draw({ id, model, settings }) {
  try {
    loading ??= load(new URL(model));
    loading.catch(() => (loading = null));
    const { painter, device } = await loading;
    const start = performance.now();
    let last;
    for await (last of painter.draw(settings)) {
      await messages();
      if (wanted !== id) return;
      if (!last.finished) postMessage({ kind: "step", id, ...last });
    }
    const seconds = (performance.now() - start) / 1000;
    const { pixels, side, maps } = last;
    postMessage({ kind: "picture", id, pixels, side, maps, seconds, device, threads: THREADS });
  } catch (error) {
    postMessage({ kind: "fault", id, message: error.message ?? String(error) });
  }
}

/** Let messages that have come in the meantime, such as "stop", be read. */
function messages() {
  return new Promise((done) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = done;
    port2.postMessage(null);
  });
}

/** A painter on the GPU where there is one, else on the processor: { painter, device }. */
async function load(model) {
  const [description, runtimes] = await Promise.all([
    fetched(new URL("model.json", model)).then((response) => response.json()),
    fetched(new URL("runtime.json", RUNTIME)).then((response) => response.json()),
  ]);
  const files = {};
  for (const [name, file] of Object.entries(description.files)) {
    files[name] = { url: new URL(file, model), size: description.bytes[file] };
  }
  const device = (await hasGpu()) ? "webgpu" : "wasm";
  const wasm = { url: new URL(runtimes[device].wasm, RUNTIME), size: runtimes[device].bytes };
  const bytes = await download({ ...files, wasm });
  if (device === "webgpu") {
    try {
      return { device, painter: await start(runtimes, device, description, bytes) };
    } catch (error) {
      console.warn("The GPU cannot be used, so the processor is:", error);
      bytes.wasm = undefined;
    }
  }
  return { device: "wasm", painter: await start(runtimes, "wasm", description, bytes) };
}

async function start(runtimes, device, description, bytes) {
  const ort = await import(new URL(runtimes[device].script, RUNTIME));
  ort.env.wasm.wasmPaths = RUNTIME.href;
  ort.env.wasm.numThreads = THREADS;
  ort.env.wasm.wasmBinary = bytes.wasm?.buffer;
  const options = { executionProviders: [device], logSeverityLevel: ERRORS };
  const networks = {};
  for (const name of Object.keys(description.files)) {
    networks[name] = await ort.InferenceSession.create(inSinglePrecision(bytes[name]), options);
  }
  const painter = new Painter(ort, description, networks);
  if (device === "webgpu") await tryOut(painter);
  return painter;
}

/** Draw in a few steps, so that all programs of the graphics processor are there; throw if the last step was slow. */
async function tryOut(painter) {
  let [before, took] = [performance.now(), 0];
  for await (const { finished } of painter.draw({ prompt: "", seed: 0, steps: 3, guidance: 2 })) {
    if (!finished) took = performance.now() - before;
    before = performance.now();
  }
  if (took > SLOW) throw new Error(`a step takes ${took.toFixed(0)} ms`);
}

/** The GPU's build of the runtime needs functions of JavaScript that WebAssembly can wait for. */
async function hasGpu() {
  if (!self.navigator?.gpu || !WebAssembly.Suspending) return false;
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  return Boolean(adapter) && !adapter.info?.isFallbackAdapter;
}

async function fetched(url, signal) {
  const response = await fetch(url, { signal }).catch((error) => {
    throw notFetched(url, error.message);
  });
  if (!response.ok) throw notFetched(url, response.status);
  return response;
}

function notFetched(url, reason) {
  return new Error(say("{file} cannot be fetched ({reason})", { file: url.pathname, reason }));
}

/** Fetch files, { name: { url, size } }, all at once, and tell how far it is; return their bytes by name. */
async function download(files) {
  const total = Object.values(files).reduce((sum, { size }) => sum + size, 0);
  let loaded = 0;
  let told = 0;
  const stop = new AbortController(); // of all, when one fails
  const one = async ([name, { url, size }]) => {
    const bytes = new Uint8Array(size);
    let at = 0;
    const reader = (await fetched(url, stop.signal)).body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || at + value.length > size) break;
      bytes.set(value, at);
      at += value.length;
      loaded += value.length;
      if (loaded - told > 250_000) postMessage({ kind: "loading", loaded: (told = loaded), total });
    }
    if (at !== size) {
      throw new Error(say("{file} has another size than was expected", { file: url.pathname }));
    }
    return [name, bytes];
  };
  try {
    return Object.fromEntries(await Promise.all(Object.entries(files).map(one)));
  } finally {
    stop.abort();
  }
}
