// The formulas of crosseai.postproc, in its order and precision: double where it uses double, float32 (Math.fround)
// where it uses float, so that the page's mask is the one that was scored.

// Where each enlarged pixel lies between two source pixels: half-pixel centres, clamped edges.
function interpolationTaps(size, enlargedSize) {
  const step = size / enlargedSize;
  return Array.from({ length: enlargedSize }, (_, i) => {
    const position = Math.min(Math.max((i + 0.5) * step - 0.5, 0), size - 1);
    const lower = Math.floor(position);
    return { lower, upper: Math.min(lower + 1, size - 1), weight: position - lower };
  });
}

// Heat map Float32Array [h, w] as float32 [height, width], minimum..maximum as 0..peak.
function enlargeHeatmap(heatmap, [h, w], height, width, peak) {
  const columns = interpolationTaps(w, width), rows = interpolationTaps(h, height);
  const wide = new Float64Array(h * width);
  for (let y = 0; y < h; y++) {
    columns.forEach((tap, x) => {
      const lower = heatmap[y * w + tap.lower];
      wide[y * width + x] = lower + tap.weight * (heatmap[y * w + tap.upper] - lower);
    });
  }
  let low = Infinity, high = -Infinity;
  for (const row of rows) {
    for (let x = 0; x < width; x++) {
      const lower = wide[row.lower * width + x];
      const value = lower + row.weight * (wide[row.upper * width + x] - lower);
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  const scale = high > low ? peak / (high - low) : 0;
  const scaled = Float32Array.from(wide, (value) => (value - low) * scale);
  const enlarged = new Float32Array(height * width);
  rows.forEach((row, y) => {
    const weight = Math.fround(row.weight);
    for (let x = 0; x < width; x++) {
      const lower = scaled[row.lower * width + x], upper = scaled[row.upper * width + x];
      const step = Math.fround(weight * Math.fround(upper - lower));
      enlarged[y * width + x] = Math.max(Math.fround(lower + step), 0);
    }
  });
  return enlarged;
}

// Gradient map clipped at a percentile, scaled to 0..1, raised to a power, smoothed; null where nothing of that is asked.
function shapeGradient(gradient, height, width, parameters) {
  const { gradient_percentile: percentile, gradient_power: power, gradient_sigma: sigma } = parameters;
  if (percentile === 100 && power === 1 && sigma === 0) return null;
  const counts = new Float64Array(256);
  for (const value of gradient) counts[value]++;
  const low = counts.findIndex((count) => count > 0);
  const rank = Math.max(1, Math.ceil((percentile * gradient.length) / 100));
  let high = 0;
  for (let seen = counts[0]; seen < rank; seen += counts[high]) high++;
  const scale = high > low ? 1 / (high - low) : 0;
  const table = Float32Array.from(counts, (_, v) => ((Math.min(Math.max(v, low), high) - low) * scale) ** power);
  const shaped = Float32Array.from(gradient, (value) => table[value]);
  return sigma > 0 ? smooth(shaped, height, width, sigma * Math.min(height, width)) : shaped;
}

// Three box filters in each direction, together of a Gaussian's variance; the border is repeated.
function smooth(map, height, width, sigmaPx) {
  const variance = 12 * sigmaPx * sigmaPx;
  const radius = Math.floor((Math.sqrt(variance / 3 + 1) - 1) / 2), side = 2 * radius + 1;
  const narrow = Math.round((3 * side * side + 12 * side + 9 - variance) / (4 * side + 4));
  for (const [lines, length, step, stride] of [[width, height, width, 1], [height, width, 1, width]]) {
    for (let pass = 0; pass < 3; pass++) {
      const reach = pass < narrow ? radius : radius + 1, mean = new Float32Array(map.length);
      for (let line = 0; line < lines; line++) {
        const at = (i) => map[line * stride + Math.min(Math.max(i, 0), length - 1) * step];
        let sum = 0;
        for (let i = -reach; i <= reach; i++) sum += at(i);
        for (let i = 0; i < length; i++) {
          mean[line * stride + i * step] = sum / (2 * reach + 1);
          sum += at(i + reach + 1) - at(i - reach);
        }
      }
      map = mean;
    }
  }
  return map;
}

// t * heat map + (1 - t) * gradient map, each 0..255: float32 [height, width].
function fuse(layers, parameters) {
  const { heatmap, shape, gradient, height, width } = layers, { t } = parameters;
  const fused = enlargeHeatmap(heatmap, shape, height, width, 255 * t);
  const shaped = shapeGradient(gradient, height, width, parameters), map = shaped ?? gradient;
  let low = Infinity, high = -Infinity;
  for (const value of map) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const scale = high > low ? (255 * (1 - t)) / (high - low) : 0, single = Math.fround(scale);
  for (let i = 0; i < fused.length; i++) {
    fused[i] += Math.fround((map[i] - low) * (shaped ? scale : single));
  }
  return fused;
}

// Pixels above a share of the maximum, and the gaps between them: Uint8Array of 0 and 1.
function binarize(fused, height, width, { threshold, closing }) {
  const peak = fused.reduce((a, b) => Math.max(a, b), 0);
  const limit = peak > 0 ? Math.fround(threshold * peak) : Infinity;
  const mask = Uint8Array.from(fused, (value) => (value > limit ? 1 : 0));
  const radius = Math.round(closing * Math.min(height, width));
  return radius > 0 ? close(mask, height, width, radius) : mask;
}

// Dilation, then erosion, by a square, in a frame with a margin wide enough for both.
function close(mask, height, width, radius) {
  const margin = 2 * radius, rows = height + 2 * margin, columns = width + 2 * margin;
  let plane = new Uint8Array(rows * columns);
  for (let y = 0; y < height; y++) {
    plane.set(mask.subarray(y * width, (y + 1) * width), (y + margin) * columns + margin);
  }
  for (const found of [1, 0]) {
    for (const [lines, length, step, stride] of [[columns, rows, columns, 1], [rows, columns, 1, columns]]) {
      const spread = plane.slice();
      for (let line = 0; line < lines; line++) {
        let last = -Infinity; // the nearest such pixel behind, then ahead
        for (let i = 0; i < length; i++) {
          if (plane[line * stride + i * step] === found) last = i;
          if (i - last <= radius) spread[line * stride + i * step] = found;
        }
        last = Infinity;
        for (let i = length - 1; i >= 0; i--) {
          if (plane[line * stride + i * step] === found) last = i;
          if (last - i <= radius) spread[line * stride + i * step] = found;
        }
      }
      plane = spread;
    }
  }
  return Uint8Array.from(mask, (_, i) => plane[(Math.floor(i / width) + margin) * columns + (i % width) + margin]);
}
