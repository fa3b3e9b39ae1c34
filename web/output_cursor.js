// output_cursor.js -- where in a session's output the terminal stands. Whatever a reconnect repeats
// is cut off here, so that each byte is shown once.

export class OutputCursor {
  /** 16 hex digits; changes only when the output starts over. */
  epoch = null;
  /** The offset after the last byte taken; null before the first. */
  offset = null;

  /** For ?since=, or null when nothing was shown yet. */
  get since() {
    return this.epoch === null || this.offset === null ? null : `${this.epoch}:${this.offset}`;
  }

  /**
   * @param {Uint8Array} bytes output that ends at offset end
   * @returns {Uint8Array|null} the part that is new (maybe empty); null when bytes between are missing
   */
  take(bytes, end) {
    const start = end - bytes.length;
    if (this.offset === null) this.offset = start;
    if (start > this.offset) return null;
    if (end <= this.offset) return bytes.subarray(bytes.length);
    const fresh = bytes.subarray(this.offset - start);
    this.offset = end;
    return fresh;
  }

  /** What follows starts at offset of that epoch. */
  reset(epoch, offset) {
    this.epoch = epoch;
    this.offset = offset;
  }
}

/** @returns {{epoch: string, offset: number}|null} an event's id, "EPOCH:OFFSET" */
export function parseId(id) {
  const match = /^([0-9a-f]{16}):(\d+)$/.exec(id ?? '');
  return match && { epoch: match[1], offset: Number(match[2]) };
}
