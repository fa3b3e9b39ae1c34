// replay_mark.js -- how far the output of a stream is a replay: what was there before this page came. The first state
// event that knows the head of the output says so.

export class ReplayMark {
  /** Output before this offset is a replay; null: none is. */
  until = null;
  #answersAll;
  #isOpen = false;

  /** @param {boolean} answersAll this page opened the session: nobody else answered its first queries */
  constructor(answersAll) {
    this.#answersAll = answersAll;
  }

  /** From the beginning of a stream until it is known where its head was. */
  get isOpen() {
    return this.#isOpen;
  }

  streamBegins() {
    this.#isOpen = true;
  }

  /**
   * @param {{state: string, epoch: string|null, offset: number|null}} event a state event
   * @param {import('./output_cursor.js').OutputCursor} cursor behind what is shown
   */
  told({ state, epoch, offset }, cursor) {
    // Of a shell that is still being made there is nothing to replay; of any other one the head is told later, perhaps by the
    // next stream.
    const isNew = epoch === null && (state === 'provisioning' || state === 'connecting');
    if (!this.#isOpen || (offset === null && !isNew)) return;
    const seen = cursor.epoch === epoch ? (cursor.offset ?? 0) : 0;
    this.until = !this.#answersAll && offset > seen ? offset : null;
    this.#answersAll = this.#isOpen = false;
  }

  /** There is output, or a reset: a head that was not told by now will not be. */
  outputGoesOn() {
    this.#isOpen = false;
  }

  /** All of the replay is shown. */
  end() {
    this.until = null;
  }
}
