// The page: its worker holds the model, this script the texts and the controls.
"use strict";

const $ = (id) => document.getElementById(id);
const model = JSON.parse($("model").textContent);
const { vocabulary } = model;
const symbols = [...vocabulary.characters];
const idOf = new Map(symbols.map((character, id) => [character, id]));
const isBytes = vocabulary.kind === "bytes";
const unit = isBytes ? "byte" : "character";

const element = (name, content = "", properties = {}) => {
  const made = Object.assign(document.createElement(name), properties);
  made.textContent = content;
  return made;
};

/** How a symbol is shown where it stands alone. */
function shown(id) {
  if (id === vocabulary.boundary) return "end of text";
  if (id === vocabulary.unknown) return "unknown";
  if (isBytes && id > 126) return `byte ${id}`;
  const name = { " ": "space", "\n": "newline", "\t": "tab" }[symbols[id]];
  if (name || !/[\p{Z}\p{C}\p{M}]/u.test(symbols[id])) return name ?? symbols[id];
  return `U+${symbols[id].codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
}

const counted = (count) => `${count.toLocaleString("en")} ${unit}${count === 1 ? "" : "s"}`;

/** The ids of a text; characters without one become the unknown symbol or, where there is none, are left out. */
function encoded(text) {
  const plain = text.replace(/\r\n?/g, "\n");
  if (isBytes) return Array.from(new TextEncoder().encode(plain));
  const ids = [];
  for (const character of plain) {
    const known = idOf.has(character) ? character : (vocabulary.equivalents[character] ?? character);
    for (const one of known) {
      const id = idOf.get(one) ?? vocabulary.unknown;
      if (id !== null) ids.push(id);
    }
  }
  return ids;
}

/** The text of ids, one string each; the bytes of a character stand with its last one, and a boundary ends a line. */
function decoded(ids) {
  if (!isBytes) return ids.map((id) => symbols[id] ?? (id === vocabulary.unknown ? "\ufffd" : "\n"));
  const decoder = new TextDecoder("utf-8");
  return ids.map((id) => (id < 256 ? decoder.decode(Uint8Array.of(id), { stream: true }) : "\n"));
}

// --- the worker ------------------------------------------------------------------------------------

const worker = new Worker(URL.createObjectURL(new Blob([$("worker-code").textContent], { type: "text/javascript" })));
let request = 0;
let isLoaded = false;
const answers = new Map(); // what to call with the messages of each type, for the latest request only

/** Sends a request, which ends the work for earlier ones; until the model is unpacked, only that one counts. */
function ask(type, data = {}, answer = () => {}) {
  if (!isLoaded && type !== "load") return;
  request += 1;
  $("stop").disabled = true;
  $("more").disabled = !isLoaded;
  for (const status of document.querySelectorAll(".status"))
    if (/^(reading|writing)/.test(status.textContent)) status.textContent = "";
  answers.set(type, answer);
  worker.postMessage({ type, request, ...data });
}
worker.onmessage = ({ data }) => {
  if (data.request === request) answers.get(data.type)?.(data);
};

// --- play ------------------------------------------------------------------------------------------

let text = []; // the ids after those that every text starts with
let primed = 0; // how many of them the user gave
const earlier = []; // {ids, primed} of texts that were left

/** Shows the text, and follows its end if that was visible. */
function showText(follows = false) {
  const strings = decoded(text);
  const box = $("written");
  const isAtEnd = follows || box.scrollTop + box.clientHeight > box.scrollHeight - 8;
  box.replaceChildren(
    element("span", strings.slice(0, primed).join(""), { className: "prime" }),
    element("span", strings.slice(primed).join("")),
    element("span", "", { className: "cursor" }),
  );
  if (isAtEnd) box.scrollTop = box.scrollHeight;
}

/** A symbol and its probability, as a bar. */
function bar(name, id, probability) {
  const made = element(name, "", { className: "bar" });
  const share = `${(100 * probability).toFixed(1)} %`;
  made.append(element("kbd", shown(id)), element("span", share));
  made.style.setProperty("--share", probability);
  if (name === "button") Object.assign(made, { type: "button", ariaLabel: `${shown(id)}, ${share}` });
  return made;
}

/** Fills a list with buttons; the focus stays at its place. */
function showButtons(list, buttons) {
  const place = [...list.children].findIndex((item) => item.contains(document.activeElement));
  list.replaceChildren(
    ...buttons.map((button) => {
      const item = document.createElement("li");
      item.append(button);
      return item;
    }),
  );
  if (place >= 0) buttons[Math.min(place, buttons.length - 1)]?.focus();
}

function showExpected(list) {
  const buttons = list.map(([id, probability]) => {
    const button = bar("button", id, probability);
    button.onclick = () => goOn([...text, id]);
    return button;
  });
  showButtons($("next"), buttons);
}

function showEarlier() {
  const buttons = earlier.map((left, index) => {
    const button = element("button", decoded(left.ids).join("").trim().slice(-40) || "(empty)", { type: "button" });
    button.onclick = () => {
      earlier.splice(index, 1);
      keep();
      ({ ids: text, primed } = left);
      write(0);
    };
    return button;
  });
  showButtons($("earlier"), buttons);
}

/** Keeps the present text among the earlier ones, unless the next text continues it. */
function keep(next = []) {
  const isShorter = next.length < text.length && next.every((id, place) => id === text[place]);
  const isTakenBack = isShorter && [...decoded(text.slice(next.length)).join("")].length < 2; // one character
  const isContinued = text.every((id, place) => id === next[place]);
  if (text.length > primed && !isContinued && !isTakenBack) earlier.unshift({ ids: text, primed });
  showEarlier();
}

/** Replaces the text by another, and goes on from there. */
function goOn(ids) {
  keep(ids);
  text = ids;
  primed = Math.min(primed, ids.length);
  write(0);
}

/** Writes so many more characters. */
function write(length) {
  const seed = Number($("seed").value) + text.length - primed; // of the same text, "more" is not the same again
  const data = {
    ids: primed ? text : [...vocabulary.start, ...text],
    length,
    temperature: Number($("temperature").value),
    topP: Number($("top-p").value),
    seed,
  };
  const began = performance.now();
  let count = 0;
  const isFocused = [$("more"), $("stop")].includes(document.activeElement); // disabling them ends that
  showText(true);
  ask("write", data, (answer) => {
    text = [...text, ...answer.ids];
    count += answer.ids.length;
    if (answer.ids.length) showText();
    showExpected(answer.expected);
    if (!answer.isDone) return;
    const speed = Math.round((1000 * count) / (performance.now() - began)).toLocaleString("en");
    const end = text.at(-1) === vocabulary.boundary && text.length ? "; the model ended the text" : "";
    $("play-status").textContent = `${counted(text.length)}${count ? `, ${speed} a second` : ""}${end}`;
    const isLeft = document.activeElement === $("stop") || (isFocused && document.activeElement === document.body);
    $("stop").disabled = true;
    $("more").disabled = false;
    if (isLeft) $("more").focus();
  });
  if (length) $("play-status").textContent = "writing …";
  $("stop").disabled = !length;
  $("more").disabled = true;
}

$("settings").onsubmit = (event) => {
  event.preventDefault();
  keep();
  text = encoded($("prime").value);
  primed = text.length;
  write(Number($("length").value));
};
$("more").onclick = () => $("settings").reportValidity() && write(Number($("length").value));
$("stop").onclick = () => goOn(text);

/** The number of ids before the place in the text at which an event happened. */
function placeOf(event) {
  const position = document.caretPositionFromPoint?.(event.clientX, event.clientY);
  const range = position ? null : document.caretRangeFromPoint?.(event.clientX, event.clientY);
  const node = position?.offsetNode ?? range?.startContainer;
  if (!node || !$("written").contains(node)) return null;
  const before = document.createRange();
  before.setStart($("written"), 0);
  before.setEnd(node, position?.offset ?? range.startOffset);
  let left = before.toString().length;
  return decoded(text).findIndex((string) => {
    left -= string.length;
    return left < 0;
  });
}

/** Goes back to a place in the text, or to the start of the character whose bytes lie on both sides of it. */
function goBack(place) {
  const strings = decoded(text);
  let start = place;
  while (start > 0 && strings[start - 1] === "") start--;
  goOn(text.slice(0, start));
}
$("written").onclick = (event) => {
  const place = placeOf(event);
  if (place !== null && place >= 0 && getSelection().isCollapsed) goBack(place);
};
$("written").onkeydown = (event) => {
  const { key, metaKey, ctrlKey, altKey } = event;
  // AltGr is Ctrl and Alt on Windows; Option types signs on a Mac.
  const isCommand = metaKey || (ctrlKey && !altKey) || (altKey && !ctrlKey && /^[\w ]$/.test(key));
  if (key === "Backspace" && text.length) {
    goBack(text.length - 1);
  } else if (([...key].length === 1 && !isCommand) || key === "Enter") {
    goOn([...text, ...encoded(key === "Enter" ? "\n" : key)]);
  } else {
    return;
  }
  event.preventDefault();
};

// --- look ------------------------------------------------------------------------------------------

let look = null; // {ids, strings, nats, tops, shares, memories} of the text that was read
let active = -1; // the character whose place is shown

function levelOf(place) {
  if ($("colour").value === "surprise") return `s${Math.min(6, Math.floor(look.nats[place]))}`;
  const row = (Number($("layer").value) - 1) * model.sizes.units + Number($("cell").value) - 1;
  const level = Math.round((4 * look.memories[row * look.ids.length + place]) / 97); // tanh(1) is 97 of 127
  return `c${Math.max(-4, Math.min(4, level)) + 4}`;
}

function paint() {
  if (!look) return;
  const isCell = $("colour").value === "cell";
  const names = isCell ? ["-1", "c0", "c2", "c4", "c6", "c8", "1"] : ["nats", "s1", "s2", "s3", "s4", "s5", "s6"];
  $("legend").replaceChildren(
    ...names.map((name) =>
      /^[cs]\d$/.test(name)
        ? element("span", isCell ? "\u2003" : ` ${name[1]}${name === "s6" ? "+" : ""} `, { className: name })
        : element("span", ` ${name} `),
    ),
  );
  const spans = look.strings.map((s, n) => element("span", s.replace("\n", "\u21b5\n"), { className: levelOf(n) }));
  $("painted").replaceChildren(...spans);
  show(Math.max(0, active));
}

function show(place) {
  if (!look || !look.ids.length) return;
  $("painted").children[active]?.classList.remove("active");
  active = Math.max(0, Math.min(place, look.ids.length - 1));
  $("painted").children[active].classList.add("active");
  $("place-title").textContent = `${shown(look.ids[active])}: ${look.nats[active].toFixed(2)} nats. Expected here:`;
  const count = look.tops.length / look.ids.length;
  $("place").replaceChildren(
    ...Array.from({ length: count }, (_, n) =>
      bar("li", look.tops[active * count + n], look.shares[active * count + n]),
    ),
  );
}

function read() {
  const ids = encoded($("source").value).slice(0, model.most);
  if (!ids.length) {
    $("look-status").textContent = "There is no text to read.";
    return;
  }
  answers.set("progress", ({ done }) => {
    $("look-status").textContent = `reading: ${Math.round(100 * done)} %`;
  });
  ask("look", { start: vocabulary.start, ids }, (answer) => {
    look = { ...answer, ids, strings: decoded(ids) };
    const mean = answer.nats.reduce((a, b) => a + b) / ids.length;
    $("look-status").textContent = `${counted(ids.length)}, ${mean.toFixed(3)} nats per ${unit}`;
    active = -1;
    paint();
  });
}

$("reading").onsubmit = (event) => {
  event.preventDefault();
  read();
};
$("file").onchange = async () => {
  const [file] = $("file").files;
  if (file) $("source").value = (await file.slice(0, 4 * model.most).text()).slice(0, model.most);
  if (file) read();
};
for (const id of ["colour", "layer", "cell"]) $(id).oninput = () => $(id).checkValidity() && paint();
$("painted").onmouseover = ({ target }) => {
  if (target.parentNode === $("painted")) show([...$("painted").children].indexOf(target));
};
$("painted").onclick = $("painted").onmouseover;
$("painted").onkeydown = (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10, Home: -Infinity, End: Infinity }[event.key];
  if (!step || !look) return;
  event.preventDefault();
  show(active + step);
  $("painted").children[active].scrollIntoView({ block: "nearest" });
};

// --- found, and the run ----------------------------------------------------------------------------

function showFound() {
  $("found-note").textContent = model.found.length
    ? "These cells keep track of something. Each was chosen on one half of a text and measured on the other half; an untrained network of this shape has none like it. Choose one to colour the text above by it."
    : "No cell of this network keeps track of anything that charrnn looks for, beyond what a cell of an untrained network does.";
  const buttons = model.found.map(({ feature, layer, cell, measure, figure }) => {
    const label = `${feature}: layer ${layer}, cell ${cell}, ${measure} ${figure.toFixed(2)}`;
    const button = element("button", label, { type: "button" });
    button.onclick = () => {
      $("colour").value = "cell";
      $("layer").value = layer;
      $("cell").value = cell;
      (look ? paint : read)();
      $("look").scrollIntoView();
      $("painted").focus({ preventScroll: true });
    };
    return button;
  });
  showButtons($("neurons"), buttons);
}

/** A picture of the losses, as SVG. */
function showCurve() {
  $("curve").parentNode.hidden = !model.history.length;
  if (!model.history.length) return;
  const [width, height, left, bottom] = [640, 280, 40, 24];
  const last = Math.max(...model.history.map(([step]) => step));
  const losses = model.history.flatMap(([, train, validation]) => [train, validation]);
  const [least, most] = [Math.min(...losses), Math.max(...losses)];
  const x = (step) => left + ((width - left - 8) * step) / last;
  const y = (loss) => 8 + ((height - bottom - 16) * (most - loss)) / (most - least || 1);
  const make = (name, attributes, content = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = content;
    return made;
  };
  const picture = make("svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": `The validation loss ends at ${model.history.at(-1)[2].toFixed(3)} nats per ${unit}.`,
  });
  for (const loss of [least, (least + most) / 2, most]) {
    picture.append(make("line", { x1: left, x2: width - 8, y1: y(loss), y2: y(loss), class: "grid" }));
    picture.append(make("text", { x: left - 6, y: y(loss) + 4, "text-anchor": "end" }, loss.toFixed(2)));
  }
  const update = `update ${last.toLocaleString("en")}`;
  picture.append(make("text", { x: width - 8, y: height - 4, "text-anchor": "end" }, update));
  ["train", "validation"].forEach((name, n) => {
    const points = model.history.map((row) => `${x(row[0]).toFixed(1)},${y(row[n + 1]).toFixed(1)}`).join(" ");
    picture.append(make("polyline", { points, class: name }));
  });
  $("curve").append(picture);
}

$("summary").textContent = model.summary;
$("unit").textContent = unit;
$("source").value = model.text;
$("layer").max = model.sizes.layers;
$("cell").max = model.sizes.units;
$("facts").append(...model.facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
showFound();
showCurve();
ask("load", { packed: model.packed, sizes: model.sizes, tensors: model.tensors, vocabulary }, () => {
  isLoaded = true;
  for (const id of ["write", "more", "read"]) $(id).disabled = false;
  text = encoded($("prime").value);
  primed = text.length;
  write(Number($("length").value));
});
