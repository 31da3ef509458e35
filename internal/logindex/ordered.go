package logindex

import "iter"

// outcome is what became of an item.
type outcome[R any] struct {
	result R
	err    error
}

// ordered does work on items, ahead of them at a time, and yields what came of each
// in the order of the items. The items are drawn by the caller's goroutine, work is
// called by others. An error ends it, and no call is under way when it returns.
func ordered[T, R any](items iter.Seq2[T, error], ahead int, work func(T) (R, error)) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		var queue []chan outcome[R]
		defer func() {
			for _, q := range queue {
				<-q
			}
		}()
		next := func() bool {
			o := <-queue[0]
			queue = queue[1:]
			return yield(o.result, o.err) && o.err == nil
		}
		for item, err := range items {
			done := make(chan outcome[R], 1)
			queue = append(queue, done)
			if err != nil {
				done <- outcome[R]{err: err}
				break
			}
			go func() {
				result, err := work(item)
				done <- outcome[R]{result, err}
			}()
			if len(queue) >= ahead && !next() {
				return
			}
		}
		for len(queue) > 0 && next() {
		}
	}
}
