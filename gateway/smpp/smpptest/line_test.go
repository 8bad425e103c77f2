package smpptest

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// A session that clears its deadline while it is being closed would else wait
// for ever on a connection that is kept open.
func TestTheReaderOfAHalfOpenLineWakesWhenTheSessionCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := newOperator(OperatorConfig{}, false)
		defer o.close()
		near, far := net.Pipe()
		defer far.Close()
		defer near.Close()
		l := o.lines.wrap(near)
		l.dead = true
		read := make(chan error, 1)
		go func() {
			_, err := l.Read(make([]byte, 10))
			read <- err
		}()
		if _, err := far.Write([]byte("nobody hears this")); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if len(read) != 0 {
			t.Fatal("something was heard over a dead line")
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := l.SetReadDeadline(time.Time{}); err == nil {
			t.Error("the deadline was taken back")
		}
		if err := <-read; err == nil {
			t.Error("the reader did not see the end")
		}
		if _, err := l.Read(make([]byte, 10)); err == nil {
			t.Error("a second read does not see the end")
		}
		if n, err := l.Write([]byte("into the void")); n != 13 || err != nil {
			t.Errorf("written %d, %v", n, err)
		}
	})
}
