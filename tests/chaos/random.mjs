// random.mjs -- random numbers that follow from a seed (sfc32), so that a run can be told to do the same again.
export class Random {
  constructor(seed) {
    let state = seed >>> 0;
    const next = () => {
      state = (state + 0x9e3779b9) >>> 0;
      let h = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
      h = Math.imul(h ^ (h >>> 15), 0x735a2d97);
      return (h ^ (h >>> 15)) >>> 0;
    };
    this.words = [next(), next(), next(), 1];
    for (let i = 0; i < 12; i++) this.word();
  }

  /** 32 bits. */
  word() {
    let [a, b, c, count] = this.words;
    const result = (a + b + count) >>> 0;
    count = (count + 1) >>> 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) >>> 0;
    c = (((c << 21) | (c >>> 11)) + result) >>> 0;
    this.words = [a, b, c, count];
    return result;
  }

  /** In [from, to). */
  between(from, to) {
    return from + (this.word() / 2 ** 32) * (to - from);
  }

  below(count) {
    return Math.floor(this.between(0, count));
  }

  chance(probability) {
    return this.between(0, 1) < probability;
  }

  pick(list) {
    return list[this.below(list.length)];
  }

  /** Another source, so that what one uses does not change what others get. */
  fork() {
    return new Random(this.word());
  }
}
