package ledger_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"zvonok/ledger"
	"zvonok/ledger/pg/pgtest"
)

// T2: PostgreSQL is killed with -9 while sixteen workers post. Every
// acknowledged posting is there once, and repeating all ids leads to each of
// them booked once.
func TestAcknowledgedPostingsSurviveAKill(t *testing.T) {
	t.Parallel()
	const workers, each = 16, 60
	cluster := pgtest.NewCluster(t)
	b := newBooksAt(t, cluster.URL(), workers)
	post := func(ctx context.Context, w, i int) (ledger.Verdict, error) {
		verdicts, err := b.tryPost(ctx, b.topUp(w, fmt.Sprintf("%d-%d", w, i), 10_00))
		if err != nil {
			return ledger.Verdict{}, err
		}
		return verdicts[0], nil
	}
	var mu sync.Mutex
	acknowledged := map[string]ledger.PostingID{}
	half := make(chan struct{})
	var group errgroup.Group
	for w := range workers {
		group.Go(func() error {
			for i := range each {
				v, err := post(t.Context(), w, i)
				if err != nil {
					continue // lost with the server, or before it is back
				}
				mu.Lock()
				acknowledged[fmt.Sprintf("%d-%d", w, i)] = v.Posting
				if len(acknowledged) == workers*each/4 {
					close(half)
				}
				mu.Unlock()
			}
			return nil
		})
	}
	<-half
	cluster.Kill9(t)
	b.must(group.Wait())
	cluster.Restart(t)

	deadline, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for b.pool.Ping(deadline) != nil { // connections of the dead server go one by one
		if deadline.Err() != nil {
			t.Fatal("PostgreSQL did not come back")
		}
	}
	b.sound()
	rows, err := b.pool.Query(t.Context(), `SELECT ext_id, id FROM ledger.posting`)
	b.must(err)
	stored := map[string]ledger.PostingID{}
	var id string
	var posting ledger.PostingID
	_, err = pgx.ForEachRow(rows, []any{&id, &posting}, func() error {
		stored[id] = posting
		return nil
	})
	b.must(err)
	for id, posting := range acknowledged {
		if stored[id] != posting {
			t.Errorf("%s was acknowledged as posting %d and is %d", id, posting, stored[id])
		}
	}
	for w := range workers {
		for i := range each {
			v, err := post(t.Context(), w, i)
			b.must(err)
			if first, known := stored[fmt.Sprintf("%d-%d", w, i)]; known && (v.Code != ledger.CodeDuplicate || v.Posting != first) {
				t.Errorf("repeating %d-%d is %+v, it was posting %d", w, i, v, first)
			}
		}
		if got := b.balance(w).Posted; got != each*10_00 {
			t.Errorf("wallet %d holds %s", w, got)
		}
	}
	b.sound()
}
