// What a reader chose in the views of a page, as the end of the page's address: #network.block=1&network.unit=12.
//
// `traits` says what can stand there, {view: {trait: kind}}. A kind is a number n for the whole numbers below it, a list
// for one of its values, {patches: n} for a list of patches ("3.5.7"), or {pixels: n} for a picture's grey values.
// A picture stands there only where the view's trait `start`, the example it came from, is none (-1).

/** The address's end for what is not as it was at first; now(view, trait) and first(view, trait) give the values. */
export function addressOf(traits, now, first) {
  const parts = [];
  for (const [view, kinds] of Object.entries(traits)) {
    for (const [trait, kind] of Object.entries(kinds)) {
      if (kind.pixels && now(view, "start") >= 0) continue;
      const text = addressText(kind, now(view, trait));
      if (text === null || text === addressText(kind, first(view, trait))) continue;
      parts.push(`${view}.${trait}=${encodeURIComponent(text).replaceAll("%20", "+")}`);
    }
  }
  return parts.join("&");
}

/** {values: {view: {trait: value}}, wrong: what no view has}; null for an address that only names a place. */
export function addressRead(traits, text) {
  if (!text.includes("=")) return null;
  const values = {};
  const wrong = [];
  for (const part of text.split("&")) {
    const [, view, trait, written] = part.match(/^(\w+)\.(\w+)=(.*)$/) || [];
    const known = Object.hasOwn(traits, view) && Object.hasOwn(traits[view], trait);
    const value = known ? addressValue(traits[view][trait], written) : null;
    if (value === null) {
      wrong.push(part);
      continue;
    }
    values[view] ||= {};
    values[view][trait] = value;
  }
  return { values, wrong };
}

/** A value as it is written; null for one that is not of its kind. */
function addressText(kind, value) {
  if (kind.pixels) return picturePacked(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  if (kind.patches) return value.join(".");
  const fits = Array.isArray(kind) ? kind.includes(value) : value >= 0 && value < kind;
  return fits ? String(value) : null;
}

/** The value that is written; null for one that is not of its kind. */
function addressValue(kind, written) {
  const whole = (text, count) => (/^\d{1,9}$/.test(text) && Number(text) < count ? Number(text) : null);
  if (typeof kind === "number") return whole(written, kind);
  if (kind.pixels) return pictureUnpacked(written, kind.pixels);
  if (kind.patches) {
    const patches = written === "" ? [] : written.split(".").map((text) => whole(text, kind.patches));
    return patches.includes(null) ? null : [...new Set(patches)].sort((a, b) => a - b);
  }
  const isWritten = (value) => encodeURIComponent(value).replaceAll("%20", "+") === written;
  return kind.find(isWritten) ?? null;
}

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"; // base64url

/**
 * Grey values 0 to 255 as text: 16 levels each, and after a black pixel how many black ones follow, 0 to 15.
 * A letter holds a level and a half; a digit takes about two hundred of them.
 */
export function picturePacked(pixels) {
  const levels = [];
  for (let at = 0; at < pixels.length; at++) {
    const level = Math.round(pixels[at] / 17);
    levels.push(level);
    if (level > 0) continue;
    let more = 0;
    while (more < 15 && at + 1 < pixels.length && Math.round(pixels[at + 1] / 17) === 0) {
      more++;
      at++;
    }
    levels.push(more);
  }
  let text = "";
  for (let at = 0; at < levels.length; at += 3) {
    const [one, two = 0, three = 0] = levels.slice(at, at + 3);
    const bits = (one << 8) | (two << 4) | three;
    text += LETTERS[bits >> 6] + LETTERS[bits & 63];
  }
  return text;
}

/** The grey values as a DataView, of `count` pixels; null for a text that is not so many. */
export function pictureUnpacked(text, count) {
  const levels = [];
  for (let at = 0; at < text.length; at += 2) {
    const [high, low] = [LETTERS.indexOf(text[at]), LETTERS.indexOf(text[at + 1] ?? "?")];
    if (high < 0 || low < 0) return null;
    const bits = (high << 6) | low;
    levels.push(bits >> 8, (bits >> 4) & 15, bits & 15);
  }
  const pixels = new Uint8Array(count);
  let at = 0;
  let read = 0;
  while (read < levels.length && at < count) {
    const level = levels[read++];
    if (level > 0) pixels[at++] = 17 * level;
    else at += 1 + (levels[read++] ?? count);
  }
  return at === count && levels.length - read < 3 ? new DataView(pixels.buffer) : null;
}
