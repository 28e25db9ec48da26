// The points of the code map: where they are, their colours and shapes, what is drawn of them.
// code_map.js goes on from here: the two files are one module.

const SHAPES = 4, MARGIN = 22;

class Points {
  constructor(model) {
    this.model = model;
    this.data = unpack(model.get("data"));
    this.count = this.data.positions.length / 2;
    this.radius = Math.max(2, Math.min(5, 180 / Math.sqrt(this.count)));
    this.hovered = this.focused = null;
  }

  // Where points are ----------------------------------------------------------------------------

  resize() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !height) return; // hidden, for now
    this.width = width;
    this.height = height;
    for (const canvas of [this.base, this.over]) sharpen(canvas, width, height);
    const { positions } = this.data, x = [Infinity, -Infinity], y = [Infinity, -Infinity];
    for (let i = 0; i < this.count; i++) {
      widen(x, positions[2 * i]);
      widen(y, positions[2 * i + 1]);
    }
    const scale = Math.min((width - 2 * MARGIN) / (x[1] - x[0] || 1),
      (height - 2 * MARGIN) / (y[1] - y[0] || 1));
    this.places = new Float32Array(2 * this.count);
    for (let i = 0; i < this.count; i++) {
      this.places[2 * i] = width / 2 + scale * (positions[2 * i] - (x[0] + x[1]) / 2);
      this.places[2 * i + 1] = height / 2 - scale * (positions[2 * i + 1] - (y[0] + y[1]) / 2);
    }
    this.draw();
  }

  place(i) { return [this.places[2 * i], this.places[2 * i + 1]]; }

  /** The point for which `far(dx, dy)` from (x, y) is least, null where it is infinite for all. */
  closest(x, y, far) {
    let best = null, least = Infinity;
    for (let i = 0; i < this.count; i++) {
      const distance = far(this.places[2 * i] - x, this.places[2 * i + 1] - y);
      if (distance < least) [best, least] = [i, distance];
    }
    return best;
  }

  // Colours -------------------------------------------------------------------------------------

  bitOf(i, bit) { return (this.data.codes[(i * this.data.bits + bit) >> 3] >> (7 - (bit & 7))) & 1; }

  distance(i, j) {
    let sum = 0;
    for (let bit = 0; bit < this.data.bits; bit++) sum += this.bitOf(i, bit) ^ this.bitOf(j, bit);
    return sum;
  }

  /** Groups of the chosen colouring: each video's group, -1 for none, and the groups' names. */
  groups() {
    const { data, model } = this, bit = model.get("bit");
    if (model.get("colour_by") === "category") return { of: data.categories, names: data.category_names };
    if (model.get("colour_by") === "bit") {
      const of = Int32Array.from({ length: this.count }, (_, i) => this.bitOf(i, bit));
      return { of, names: [`bit ${bit} is 0 (−1)`, `bit ${bit} is 1 (+1)`] };
    }
    const only = model.get("category"), names = [];
    data.story_ranks.forEach((rank, i) => {
      if (rank < 0 || !this.shown(i)) return;
      const one = only !== null || !data.category_names.length;
      names[rank] = one ? data.story_names[data.stories[i]] : `story ${rank + 1} of its category`;
    });
    return { of: data.story_ranks, names };
  }

  shown(i) {
    const only = this.model.get("category");
    return only === null || this.data.categories[i] === only;
  }

  mark(context, group, x, y, radius) {
    const { palette } = this.data, shape = (group + Math.floor(group / palette.length)) % SHAPES;
    context.fillStyle = group < 0 ? "#7f7f7f" : palette[group % palette.length];
    trace(context, group < 0 ? 0 : shape, x, y, radius);
    context.fill();
    Object.assign(context, { strokeStyle: this.ground, lineWidth: 0.6 }); // neighbours stay apart
    context.stroke();
  }

  // Drawing -------------------------------------------------------------------------------------

  draw() {
    if (!this.places) return;
    const style = getComputedStyle(this.stage), context = this.base.getContext("2d");
    this.ink = style.color;
    this.ground = style.backgroundColor;
    const { of, names } = (this.grouping = this.groups());
    const some = this.model.get("query") !== null;
    context.clearRect(0, 0, this.width, this.height);
    for (const lit of [false, true]) {
      for (let i = 0; i < this.count; i++) {
        if (this.shown(i) !== lit) continue;
        context.globalAlpha = (lit ? 0.9 : 0.12) * (some ? 0.45 : 1);
        this.mark(context, of[i], ...this.place(i), this.radius);
      }
    }
    context.globalAlpha = 1;
    if (this.model.get("colour_by") === "category" && !some) this.name(context, of, names);
    this.showLegend();
    this.drawOver();
  }

  /** Write each group's name on its own point nearest to the group's median, if there is room. */
  name(context, of, names) {
    const members = names.map(() => []), taken = [];
    for (let i = 0; i < this.count; i++) if (of[i] >= 0 && this.shown(i)) members[of[i]].push(i);
    Object.assign(context, { font: `600 11px ${this.font()}`, textAlign: "center" });
    for (const [group, its] of members.entries()) {
      if (!its.length) continue;
      const middle = [0, 1].map((axis) => median(its.map((i) => this.places[2 * i + axis])));
      const far = (i) => Math.hypot(this.place(i)[0] - middle[0], this.place(i)[1] - middle[1]);
      const [x, y] = this.place(its.reduce((best, i) => (far(i) < far(best) ? i : best)));
      const half = context.measureText(names[group]).width / 2 + 2;
      const left = Math.max(half, Math.min(this.width - half, x));
      if (taken.some(([a, b, c]) => Math.abs(a - left) < half + c && Math.abs(b - y) < 14)) continue;
      taken.push([left, y, half]);
      this.write(context, names[group], left, y - this.radius - 3);
    }
  }

  write(context, text, x, y) {
    Object.assign(context, { lineWidth: 3, lineJoin: "round", strokeStyle: this.ground });
    context.strokeText(text, x, y);
    context.fillStyle = this.ink;
    context.fillText(text, x, y);
  }

  font() { return getComputedStyle(this.stage).fontFamily; }

  drawOver() {
    if (!this.places) return;
    const context = this.over.getContext("2d"), query = this.model.get("query");
    context.clearRect(0, 0, this.width, this.height);
    if (query !== null) this.drawAnswer(context, query);
    for (const i of new Set([this.hovered, this.focused])) {
      if (i !== null) this.ring(context, i, this.radius + 4, this.ink, 2);
    }
  }

  /** What the kernel found, once it is for the query that is chosen now. */
  answer() {
    const nearest = this.model.get("nearest");
    return nearest.query === this.model.get("query") ? nearest : {};
  }

  drawAnswer(context, query) {
    const { videos = [], relevant } = this.answer(), from = this.place(query);
    const colour = (n) => (!relevant ? this.ink : relevant[n] ? "#0072b2" : "#d55e00");
    videos.forEach((video, n) => {
      Object.assign(context, { strokeStyle: colour(n), lineWidth: 1, globalAlpha: 0.6 });
      context.beginPath();
      context.moveTo(...from);
      context.lineTo(...this.place(video));
      context.stroke();
      context.globalAlpha = 1;
    });
    videos.forEach((video, n) => {
      this.mark(context, this.grouping.of[video], ...this.place(video), this.radius + 1);
      this.ring(context, video, this.radius + 4, colour(n), 2, relevant && !relevant[n]);
    });
    Object.assign(context, { font: `600 11px ${this.font()}`, textAlign: "left" });
    videos.forEach((video, n) => {
      const [x, y] = this.place(video);
      this.write(context, n + 1, x + this.radius + 6, y - 3);
    });
    this.mark(context, this.grouping.of[query], ...from, this.radius + 2);
    this.ring(context, query, this.radius + 5, this.ink, 3);
    this.ring(context, query, this.radius + 9, this.ink, 1);
  }

  ring(context, i, radius, colour, lineWidth, dashed = false) {
    Object.assign(context, { strokeStyle: colour, lineWidth });
    context.setLineDash(dashed ? [3, 2.5] : []);
    context.beginPath();
    context.arc(...this.place(i), radius, 0, 7);
    context.stroke();
    context.setLineDash([]);
  }
}

function unpack(data) {
  const copy = (view) => view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
  const integers = (view) => new Int32Array(copy(view));
  return {
    ...data,
    positions: new Float32Array(copy(data.positions)),
    codes: new Uint8Array(copy(data.codes)),
    categories: integers(data.categories),
    stories: integers(data.stories),
    story_ranks: integers(data.story_ranks),
    strips: new Uint8Array(data.strips.buffer, data.strips.byteOffset, data.strips.byteLength),
    strip_ends: new Uint32Array(copy(data.strip_ends)),
  };
}

/** Size a canvas in CSS pixels, with as many dots as the screen has. */
function sharpen(canvas, width, height) {
  const dots = window.devicePixelRatio || 1, context = canvas.getContext("2d");
  Object.assign(canvas, { width: Math.round(width * dots), height: Math.round(height * dots) });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  context.scale(dots, dots);
  return context;
}

/** Trace a circle, triangle, square or diamond of about the same area. */
function trace(context, shape, x, y, r) {
  const corners = [
    null,
    [[0, -1.3], [1.15, 0.8], [-1.15, 0.8]],
    [[-0.87, -0.87], [0.87, -0.87], [0.87, 0.87], [-0.87, 0.87]],
    [[0, -1.3], [1.1, 0], [0, 1.3], [-1.1, 0]],
  ][shape];
  context.beginPath();
  if (!corners) return context.arc(x, y, r, 0, 7);
  for (const [dx, dy] of corners) context.lineTo(x + r * dx, y + r * dy);
  context.closePath();
}

function widen(range, value) {
  range[0] = Math.min(range[0], value);
  range[1] = Math.max(range[1], value);
}

function median(values) { return values.sort((a, b) => a - b)[values.length >> 1]; }
