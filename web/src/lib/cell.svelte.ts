/** A value that pages follow: whoever reads `.value` in markup, `$derived` or `$effect` is run again if it changes. */
export class Cell<T> {
  value: T = $state.raw() as T

  constructor(first: T) {
    this.value = first
  }
}
