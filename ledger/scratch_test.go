package ledger_test

import (
	"os"
	"testing"
	"time"
)

func BenchmarkScratch(b *testing.B) {
	x := newBench(b)
	os.WriteFile("/tmp/h/books-scratch.url", []byte(x.pool.Config().ConnString()+"\n"+x.tpcb+"\n"+x.pgbench), 0o644)
	for {
		if _, err := os.Stat("/tmp/h/books-scratch.url"); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}
