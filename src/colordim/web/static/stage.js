// @ts-check
/**
 * The one canvas that all plots of a page are drawn on. It lies under the page's elements in what scrolls, a little larger
 * than what is seen, so that scrolling needs no drawing at all until its rim comes into view.
 *
 * @typedef {{x: number, y: number, w: number, h: number}} Box In pixels of the canvas.
 *
 * @typedef {object} Plot
 * @property {HTMLElement} element Whose place on the page it fills.
 * @property {(ctx: CanvasRenderingContext2D, box: Box, ratio: number) => void} draw `ratio`: pixels of the canvas to one of CSS.
 * @property {((box: Box, ratio: number) => void)} [foresee] Called for all plots in view before any is prepared.
 * @property {((box: Box, ratio: number) => void)} [prepare] Called for all plots in view before any is drawn.
 */

/** Part of the height in view that the canvas reaches beyond it at either side. */
export const RIM = 0.5;
/** Pixels to one of CSS, at most. */
const MOST_RATIO = 2;

export class Stage {
  /**
   * @param {HTMLElement} scroller
   * @param {HTMLElement} content The only child of the scroller, positioned.
   */
  constructor(scroller, content) {
    this.scroller = scroller;
    this.content = content;
    this.canvas = document.createElement("canvas");
    this.canvas.className = "cd-stage";
    this.canvas.setAttribute("aria-hidden", "true");
    content.prepend(this.canvas);
    this.ctx = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    /** @type {Map<HTMLElement, Plot>} */
    this.plots = new Map();
    this.top = 0;
    /** As RIM; none until what is in view is there. */
    this.rim = 0;
    this.frame = 0;
    /** Milliseconds that the last frames took. @type {number[]} */
    this.times = [];
    /** @type {() => void} Called before a frame. */
    this.before = () => {};
    /** @type {() => void} Called when all plots in view have said what they will need. */
    this.foreseen = () => {};
    /** @type {() => void} Called when all plots in view are prepared. */
    this.prepared = () => {};
    this.onScroll = () => {
      const { scrollTop, clientHeight } = scroller;
      const height = this.canvas.clientHeight;
      const whole = content.scrollHeight;
      if (scrollTop < this.top || Math.min(scrollTop + clientHeight, whole) > this.top + height + 1) this.invalidate();
    };
    scroller.addEventListener("scroll", this.onScroll, { passive: true });
    this.sizes = new ResizeObserver(() => this.invalidate());
    this.sizes.observe(scroller);
    this.sizes.observe(content);
  }

  /** @param {Plot} plot */
  add(plot) {
    this.plots.set(plot.element, plot);
    this.invalidate();
  }

  /** @param {HTMLElement} element */
  remove(element) {
    this.plots.delete(element);
    this.invalidate();
  }

  clear() {
    this.plots.clear();
    this.invalidate();
  }

  /** See to it that everything is drawn anew before the next frame. */
  invalidate() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    const began = performance.now();
    this.before();
    const { scroller, content, canvas, ctx } = this;
    if (!this.plots.size) {
      canvas.width = canvas.height = 0;
      canvas.style.width = canvas.style.height = "0";
      this.prepared();
      return;
    }
    const ratio = Math.min(window.devicePixelRatio || 1, MOST_RATIO);
    const view = scroller.clientHeight;
    const whole = Math.max(content.offsetHeight, 1);
    const rim = Math.round(this.rim * view);
    const top = Math.max(Math.min(scroller.scrollTop - rim, whole - view - 2 * rim), 0);
    const height = Math.min(view + 2 * rim, whole - top);
    const width = content.clientWidth;
    this.top = top;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    } else {
      ctx.clearRect(0, 0, canvas.width, canvas.height);
    }
    canvas.style.top = `${top}px`;
    const origin = content.getBoundingClientRect();
    /** @type {[Plot, Box][]} */
    const shown = [];
    for (const plot of this.plots.values()) {
      const rect = plot.element.getBoundingClientRect();
      const y = rect.top - origin.top - top;
      if (!rect.width || !rect.height || y > height || y + rect.height < 0) continue;
      const x = rect.left - origin.left;
      shown.push([
        plot,
        {
          x: Math.round(x * ratio),
          y: Math.round(y * ratio),
          w: Math.round((x + rect.width) * ratio) - Math.round(x * ratio),
          h: Math.round((y + rect.height) * ratio) - Math.round(y * ratio),
        },
      ]);
    }
    for (const [plot, box] of shown) plot.foresee?.(box, ratio);
    this.foreseen();
    for (const [plot, box] of shown) plot.prepare?.(box, ratio);
    this.prepared();
    for (const [plot, box] of shown) {
      ctx.save();
      plot.draw(ctx, box, ratio);
      ctx.restore();
    }
    this.times.push(performance.now() - began);
    if (this.times.length > 200) this.times.shift();
  }

  close() {
    cancelAnimationFrame(this.frame);
    this.scroller.removeEventListener("scroll", this.onScroll);
    this.sizes.disconnect();
    this.canvas.remove();
  }
}
