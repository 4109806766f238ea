// The model in a worker of the page: the network of charrnn/network, one character at a time.
"use strict";

const SLICE = 25; // milliseconds of work between two looks at the messages
const SNAPSHOT = 64; // characters between two kept states
const SHOWN = 5; // most expected characters of each place in a text

/** The numbers of half precision (IEEE 754 binary16) in bytes, low bytes first and then high bytes, in single. */
function fromHalves(bytes) {
  const count = bytes.length / 2;
  const numbers = new Float32Array(count);
  const single = new Float32Array(1);
  const bits = new Uint32Array(single.buffer);
  for (let at = 0; at < count; at++) {
    const half = bytes[at] | (bytes[count + at] << 8);
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    if (exponent) bits[0] = ((exponent + 112) << 23) | (fraction << 13);
    else single[0] = fraction * 2 ** -24; // zero and the smallest numbers
    numbers[at] = half & 0x8000 ? -single[0] : single[0];
  }
  return numbers;
}

/** The transpose of a matrix of so many rows. */
function transposed(matrix, rows) {
  const columns = matrix.length / rows;
  const result = new Float32Array(matrix.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) result[column * rows + row] = matrix[row * columns + column];
  }
  return result;
}

/** out = matrix times vector, plus what is added; the matrix has a row for each element of `out`. */
function multiply(matrix, vector, added, out) {
  const columns = vector.length;
  const whole = columns - (columns % 4);
  for (let row = 0, at = 0; row < out.length; row++) {
    let a = 0;
    let b = 0;
    let c = 0;
    let d = 0;
    for (let column = 0; column < whole; column += 4, at += 4) {
      a += matrix[at] * vector[column];
      b += matrix[at + 1] * vector[column + 1];
      c += matrix[at + 2] * vector[column + 2];
      d += matrix[at + 3] * vector[column + 3];
    }
    for (let column = whole; column < columns; column++, at++) a += matrix[at] * vector[column];
    out[row] = a + b + (c + d) + (added ? added[row] : 0);
  }
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** For each kind of recurrent layer: the new h, and c where it has one, of the projections x of the input and u of h. */
const CELLS = {
  rnn({ h }, x, u) {
    for (let n = 0; n < h.length; n++) h[n] = Math.tanh(x[n] + u[n]);
  },
  gru({ h }, x, u) {
    const units = h.length;
    for (let n = 0; n < units; n++) {
      const z = sigmoid(x[n] + u[n]);
      const r = sigmoid(x[units + n] + u[units + n]);
      const candidate = Math.tanh(x[2 * units + n] + r * u[2 * units + n]);
      h[n] = candidate + z * (h[n] - candidate);
    }
  },
  lstm({ h, c }, x, u) {
    const units = h.length;
    for (let n = 0; n < units; n++) {
      const i = sigmoid(x[n] + u[n]);
      const f = sigmoid(x[units + n] + u[units + n]);
      const g = Math.tanh(x[2 * units + n] + u[2 * units + n]);
      const o = sigmoid(x[3 * units + n] + u[3 * units + n]);
      c[n] = f * c[n] + i * g;
      h[n] = o * Math.tanh(c[n]);
    }
  },
  coupled({ h, c }, x, u) {
    const units = h.length;
    for (let n = 0; n < units; n++) {
      const f = sigmoid(x[n] + u[n]);
      const g = Math.tanh(x[units + n] + u[units + n]);
      const o = sigmoid(x[2 * units + n] + u[2 * units + n]);
      c[n] = f * (c[n] - g) + g;
      h[n] = o * c[n];
    }
  },
};

class Network {
  /** Takes the sizes, {cell, residual, memory, units, layers, symbols}, and the weights by their names in a checkpoint. */
  constructor(sizes, weights) {
    const { units, layers, symbols } = sizes;
    this.sizes = sizes;
    this.layers = [];
    for (let n = 0; n < layers; n++) {
      const [kernel, recurrent, bias] = ["kernel", "recurrent_kernel", "bias"].map(
        (name) => weights[`layer${n}.${name}`],
      );
      const gates = recurrent.length / units;
      this.layers.push({
        kernel: transposed(kernel, kernel.length / gates),
        recurrent: transposed(recurrent, units),
        bias: bias.subarray(0, gates),
        recurrentBias: bias.length > gates ? bias.subarray(gates) : null,
        x: new Float32Array(gates),
        u: new Float32Array(gates),
      });
    }
    this.embedding = weights.embedding;
    this.width = weights.embedding.length / symbols;
    this.kernel = transposed(weights["softmax.kernel"], units);
    this.bias = weights["softmax.bias"];
    this.logits = new Float32Array(symbols);
    this.outputs = new Float32Array(units);
  }

  zeroState() {
    const { units, layers } = this.sizes;
    return Array.from({ length: layers }, () => ({ h: new Float32Array(units), c: new Float32Array(units) }));
  }

  /** Reads a character, changes the state, and returns the logits of the next, which the next call overwrites. */
  read(id, state) {
    let input = this.embedding.subarray(id * this.width, (id + 1) * this.width);
    this.layers.forEach((layer, n) => {
      multiply(layer.kernel, input, layer.bias, layer.x);
      multiply(layer.recurrent, state[n].h, layer.recurrentBias, layer.u);
      CELLS[this.sizes.cell](state[n], layer.x, layer.u);
      if (this.sizes.residual && n > 0) {
        for (let unit = 0; unit < input.length; unit++) this.outputs[unit] = input[unit] + state[n].h[unit];
        input = this.outputs;
      } else {
        input = state[n].h;
      }
    });
    multiply(this.kernel, input, this.bias, this.logits);
    return this.logits;
  }
}

const copied = (state) => state.map(({ h, c }) => ({ h: h.slice(), c: c.slice() }));

/** The probabilities that the softmax of logits, divided by a temperature, gives. */
function softmax(logits, temperature = 1) {
  const most = logits.reduce((a, b) => Math.max(a, b));
  const weights = Float64Array.from(logits, (logit) => Math.exp((logit - most) / temperature));
  const sum = weights.reduce((a, b) => a + b);
  return weights.map((weight) => weight / sum);
}

/** The places of the largest numbers, largest first; of equal ones, the lowest places. */
function largest(numbers, count) {
  return Array.from(numbers.keys())
    .sort((a, b) => numbers[b] - numbers[a] || a - b)
    .slice(0, count);
}

/** Random numbers from 0 to below 1: mulberry32 (Tommy Ettinger, in the public domain). */
function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The logits of the characters that the model may write; -Infinity for the others. */
const writable = (logits) => Float32Array.from(logits, (logit, id) => (vocabulary.writable[id] ? logit : -Infinity));

/** The id of the next character, chosen as charrnn sample chooses: temperature, then top-p, among those it may write. */
function choose(logits, temperature, topP, random) {
  const allowed = writable(logits);
  if (temperature < 1e-3) return largest(allowed, 1)[0];
  const probabilities = softmax(allowed, temperature);
  const order = largest(probabilities, probabilities.length);
  let kept = 0;
  let sum = 0;
  while (kept < order.length && (kept === 0 || sum < topP)) sum += probabilities[order[kept++]];
  let left = random() * sum;
  for (const id of order.slice(0, kept)) {
    left -= probabilities[id];
    if (left < 0) return id;
  }
  return order[0];
}

/** A text that the network has read, with states on the way, so that going back costs little. */
class Reading {
  constructor(network) {
    this.network = network;
    this.ids = [];
    this.state = network.zeroState();
    this.states = [copied(this.state)];
    this.logits = new Float32Array(network.sizes.symbols);
  }

  /** Forgets all but the first `length` characters, and those after the last kept state before. */
  backTo(length) {
    if (length >= this.ids.length) return;
    const kept = Math.floor(length / SNAPSHOT);
    this.ids.length = kept * SNAPSHOT;
    this.states.length = kept + 1;
    this.state = copied(this.states[kept]);
  }

  read(id) {
    this.logits = this.network.read(id, this.state);
    this.ids.push(id);
    if (this.ids.length % SNAPSHOT === 0) this.states.push(copied(this.state));
  }
}

let network;
let reading;
let vocabulary;
let job = 0; // the number of the latest request; work for an earlier one ends

/** Does work in slices, so that messages are heard between them, until it is done or another request comes. */
async function inSlices(request, work) {
  while (request === job) {
    const end = performance.now() + SLICE;
    let more = true;
    while (more && performance.now() < end) more = work();
    if (!more) return true;
    await new Promise((resolve) => setTimeout(resolve));
  }
  return false;
}

/** Reads a text from the start, as far as it was not read before. */
function readAll(request, ids) {
  let common = 0;
  while (common < ids.length && ids[common] === reading.ids[common]) common++;
  if (common === ids.length) common = Math.max(0, common - 1); // the last one again, for its logits
  reading.backTo(common);
  return inSlices(request, () => {
    if (reading.ids.length < ids.length) reading.read(ids[reading.ids.length]);
    return reading.ids.length < ids.length;
  });
}

/** What may come next: ids and probabilities, the most probable first. */
function expected(logits, count) {
  const probabilities = softmax(writable(logits));
  return largest(probabilities, count).map((id) => [id, probabilities[id]]);
}

const ACTIONS = {
  /** Unpacks the model. */
  async load({ request, packed, sizes, tensors, ...rest }) {
    vocabulary = rest.vocabulary;
    const binary = atob(packed);
    const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const numbers = fromHalves(new Uint8Array(await new Response(stream).arrayBuffer()));
    const weights = {};
    let at = 0;
    for (const [name, size] of tensors) {
      weights[name] = numbers.subarray(at, at + size);
      at += size;
    }
    network = new Network(sizes, weights);
    reading = new Reading(network);
    return { request };
  },

  /** Reads ids, then writes `length` more, in pieces as they come. */
  async write({ request, ids, length, temperature, topP, seed }) {
    if (!(await readAll(request, ids))) return null;
    const random = randomNumbers(seed);
    let fresh = [];
    let left = length;
    const show = (isDone) =>
      self.postMessage({ type: "write", request, ids: fresh, expected: expected(reading.logits, 8), isDone });
    await inSlices(request, () => {
      const start = performance.now();
      while (left > 0 && performance.now() - start < SLICE) {
        const id = choose(reading.logits, temperature, topP, random);
        reading.read(id);
        fresh.push(id);
        left = id === vocabulary.boundary ? 0 : left - 1; // with a boundary, the model ends its text
      }
      if (left <= 0) return false;
      show(false);
      fresh = [];
      return true;
    });
    show(true);
    return null;
  },

  /** Reads a text for looking at: the nats of each character, what was expected there, and each cell's memory. */
  async look({ request, start, ids }) {
    const { units, layers, memory } = network.sizes;
    const state = network.zeroState();
    const nats = new Float32Array(ids.length);
    const tops = new Uint32Array(ids.length * SHOWN);
    const shares = new Float32Array(ids.length * SHOWN);
    const memories = new Int8Array(ids.length * layers * units); // a row for each cell
    let logits;
    for (const id of start) logits = network.read(id, state);
    let at = 0;
    const isDone = await inSlices(request, () => {
      const probabilities = softmax(logits);
      nats[at] = -Math.log(probabilities[ids[at]]);
      largest(probabilities, SHOWN).forEach((id, n) => {
        tops[at * SHOWN + n] = id;
        shares[at * SHOWN + n] = probabilities[id];
      });
      logits = network.read(ids[at], state);
      state.forEach((parts, layer) => {
        const kept = parts[memory];
        for (let n = 0; n < units; n++) memories[(layer * units + n) * ids.length + at] = 127 * Math.tanh(kept[n]);
      });
      at++;
      if (at % 256 === 0) self.postMessage({ type: "progress", request, done: at / ids.length });
      return at < ids.length;
    });
    return isDone ? { request, nats, tops, shares, memories } : null;
  },

  /** The logits after each character, for tests. */
  async logits({ request, ids }) {
    const state = network.zeroState();
    return { request, logits: ids.map((id) => Array.from(network.read(id, state))) };
  },
};

self.addEventListener("message", async ({ data }) => {
  job = data.request;
  const answer = await ACTIONS[data.type](data);
  if (answer) self.postMessage({ type: data.type, ...answer });
});
