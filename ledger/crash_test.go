package ledger_test

import (
	"context"
	"fmt"
	"strings"
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
	cluster := pgtest.NewCluster(t)
	acknowledgedSurvive(t, cluster, func() { cluster.Kill9(t) })
}

// T11: the disk takes nothing any more, so that fsync is an error, while sixteen
// workers post. Who asks then hears an error and is never acknowledged; PostgreSQL
// gives up, and when the disk is whole again all is as after a kill.
func TestAcknowledgedPostingsSurviveADiskThatFails(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewClusterOnADiskThatFails(t)
	acknowledgedSurvive(t, cluster, func() { cluster.FailDisk(t) })
	if log := cluster.Log(t); !strings.Contains(log, "PANIC") || !strings.Contains(log, "Input/output error") {
		t.Errorf("PostgreSQL has not heard of the disk:\n%s", log)
	}
}

// acknowledgedSurvive posts with sixteen workers and lets a fault happen to
// PostgreSQL when a quarter is acknowledged; none is acknowledged after it. The
// cluster is started again when the workers have tried all.
func acknowledgedSurvive(t *testing.T, cluster *pgtest.Cluster, fault func()) {
	t.Helper()
	const workers, each = 16, 24
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
	quarter, happened := make(chan struct{}), make(chan struct{})
	over := func() bool {
		select {
		case <-happened:
			return true
		default:
			return false
		}
	}
	var group errgroup.Group
	for w := range workers {
		group.Go(func() error {
			for i := range each {
				late := over()
				v, err := post(t.Context(), w, i)
				if err != nil {
					continue // lost with the server, or before it is back
				}
				if late {
					t.Errorf("%d-%d was acknowledged after the fault", w, i)
				}
				mu.Lock()
				acknowledged[fmt.Sprintf("%d-%d", w, i)] = v.Posting
				n := len(acknowledged)
				if n == workers*each/4 {
					close(quarter)
				}
				mu.Unlock()
				if n > workers*each*3/4 {
					<-happened // so that a slow fault finds some left
				}
			}
			return nil
		})
	}
	<-quarter
	fault()
	close(happened)
	b.must(group.Wait())
	cluster.AwaitEnd(t)
	cluster.MendDisk(t)
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
		group.Go(func() error {
			for i := range each {
				v, err := post(t.Context(), w, i)
				if err != nil {
					return err
				}
				if first, known := stored[fmt.Sprintf("%d-%d", w, i)]; known && (v.Code != ledger.CodeDuplicate || v.Posting != first) {
					t.Errorf("repeating %d-%d is %+v, it was posting %d", w, i, v, first)
				}
			}
			return nil
		})
	}
	b.must(group.Wait())
	for w := range workers {
		if got := b.balance(w).Posted; got != each*10_00 {
			t.Errorf("wallet %d holds %s", w, got)
		}
	}
	b.sound()
}
