package pgtest_test

import (
	"bufio"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/pg"
	"zvonok/ledger/pg/pgtest"
)

const addPayee = "INSERT INTO ledger.payee (code, name, inn, payment_code) VALUES ('p', 'n', '7723862777', '916')"

func TestEachTestHasAMigratedDatabaseOfItsOwn(t *testing.T) {
	t.Parallel()
	for range 3 {
		t.Run("a database", func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			var role string
			if err := pool.QueryRow(t.Context(), "SELECT current_user").Scan(&role); err != nil || role != pg.AppRole {
				t.Fatalf("the role is %q, %v", role, err)
			}
			var payees int
			if _, err := pool.Exec(t.Context(), addPayee); err != nil {
				t.Fatal(err)
			}
			if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM ledger.payee").Scan(&payees); err != nil || payees != 1 {
				t.Fatalf("there are %d payees, %v; want this test's own", payees, err)
			}
		})
	}
}

func TestTheURLsAreThoseOfTheOwner(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]int{pgtest.NewURL(t): 0, pgtest.NewEmptyURL(t): -1} {
		report, err := pg.Status(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		if pending := report.Pending(); pending != want && (want == 0 || pending != len(report.Migrations)) {
			t.Errorf("%d of %d migrations are pending", pending, len(report.Migrations))
		}
		conn, err := pgx.Connect(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "CREATE SCHEMA mine"); err != nil {
			t.Error(err)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestAClusterOfATestsOwnKeepsWhatWasCommitted(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t)
	count := func() (n int) {
		conn, err := pgx.Connect(t.Context(), cluster.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM ledger.payee").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	conn, err := pgx.Connect(t.Context(), cluster.URL())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), addPayee); err != nil {
		t.Fatal(err)
	}
	for _, fault := range []func(testing.TB){cluster.Kill9, cluster.Stop} {
		before := cluster.PID()
		fault(t)
		if err := conn.Ping(t.Context()); err == nil {
			t.Fatal("the server still answers")
		}
		cluster.Restart(t)
		if n := count(); n != 1 || cluster.PID() == before {
			t.Fatalf("%d rows are there; want 1", n)
		}
	}
}

// hangVariable makes the test below start a cluster and wait to be killed.
const hangVariable = "ZVONOK_TEST_HANG"

func TestAKilledTestLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	if os.Getenv(hangVariable) != "" {
		fmt.Println(pgtest.NewURL(t))
		select {}
	}
	child := exec.Command(os.Args[0], "-test.run=^TestAKilledTestLeavesNothingBehind$")
	child.Env = append(os.Environ(), hangVariable+"=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = child.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address, err := url.Parse(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	dir := address.Query().Get("host")
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("the cluster's folder is not there: %v", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still there a minute after its test was killed", dir)
		}
	}
}
