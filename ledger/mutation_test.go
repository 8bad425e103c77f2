//go:build mutation

package ledger_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"zvonok/ledger/pg/pgtest"
)

// The mutation gate (T18, `make mutate`): the functions by which the book is
// written are changed one operator at a time, and the tests have to notice. It
// asks the tests, not the program, whether they are any good.
var (
	everyMutant = flag.Int("every", 1, "try every n-th mutant only")
	ofFunction  = flag.String("of", "", "try the mutants of this function only")
	gate        = flag.Float64("gate", 0.8, "the share of mutants that must be noticed")
)

// mutantVariable holds the statement that makes a mutant in each test's database.
const mutantVariable = "ZVONOK_LEDGER_MUTANT"

// noticing are the tests that a mutant has to get past, in the order in which they
// are tried: the first take a second or two together and notice most mutants; the
// others, which race and walk at random, are run for those that got past.
var noticing = [][]string{
	{
		"TestVerdicts", "TestThresholds", "TestARepeatAnswersWithTheFirstPosting", "TestACancelledIDIsNeverBooked",
		"TestAClosedWalletTakesNothingButWhatIsOwed", "TestHeldMoneyIsNotSpent", "TestManyHoldsAtOnceSetAsideOnlyWhatIsThere",
		"TestTheAccountingDay", "TestAClosedDayIsSealedAndSumsUp", "TestReopeningADayVoidsItsSealAndLaterOnes",
		"TestClosingADayWaitsForALatePosting", "TestFoldingStartsOverInARestoredCluster", "TestTheDebtFloorFollowsTheOrganisation",
	},
	{
		"TestTheBookBehavesLikeASimpleModel", "TestOneIDFromManyClientsIsOneCredit",
		"TestManyPurchasesAtOnceSpendOnlyWhatIsThere", "TestOverlappingBatchesBookEachIDOnce", "TestEachPostingIsReversedOnce",
		"TestOppositeTransfersNeverDeadlock", "TestFoldingLosesNothingToALongTransaction",
		"TestARandomWalkRoundThresholdsMissesNoCrossing", "TestClosingADayWhileWritersPost",
	},
}

func init() {
	statement := os.Getenv(mutantVariable)
	if statement == "" {
		return
	}
	spoil = func(b *books) { b.tamper(statement) }
}

// mutators change one operator each. Words are matched whole.
var mutators = []struct{ find, put string }{
	{` < `, ` <= `},
	{` <= `, ` < `},
	{` > `, ` >= `},
	{` >= `, ` > `},
	{` \+ `, ` - `},
	{` - `, ` + `},
	{` <> `, ` = `},
	{`\bAND\b`, `OR`},
	{`\bOR\b`, `AND`},
	{`\bNOT `, ``},
	{`\bleast\(`, `greatest(`},
	{`\bgreatest\(`, `least(`},
	{`\bIS NULL\b`, `IS NOT NULL`},
	{`\bIS NOT NULL\b`, `IS NULL`},
	{`\bbool_or\(`, `bool_and(`},
	{`\bbool_and\(`, `bool_or(`},
	{`\btrue\b`, `false`},
	{`\bfalse\b`, `true`},
	{`\s+FOR NO KEY UPDATE\b`, ``},
}

// mutated are the functions of the book that write it or decide.
var mutated = []string{
	"debit_allowed", "crossed", "body_of", "enter_days", "post_one", "post_batch", "cancel_ids", "hold_money", "end_holds",
	"set_thresholds", "set_closed", "set_policy_floors", "close_day", "seal_day", "reopen_day", "fold_postings",
}

type mutant struct{ function, line, change, statement string }

func makeMutants(t *testing.T) []mutant {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pgtest.NewURL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	var all []mutant
	for _, name := range mutated {
		var text string
		if err := conn.QueryRow(t.Context(), `
			SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'ledger'::regnamespace AND proname = $1`, name).
			Scan(&text); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		body := regexp.MustCompile(`AS \$function\$|\n\s*RETURN `).FindStringIndex(text)
		if body == nil {
			t.Fatalf("%s has no body", name)
		}
		for _, m := range mutators {
			for _, at := range regexp.MustCompile(m.find).FindAllStringIndex(text, -1) {
				line := text[strings.LastIndex(text[:at[0]], "\n")+1:]
				line = strings.TrimSpace(strings.SplitN(line, "\n", 2)[0])
				if at[0] < body[0] || strings.HasPrefix(line, "--") || strings.Contains(line, "#variable") {
					continue
				}
				all = append(all, mutant{name, line, fmt.Sprintf("%q for %q", m.put, text[at[0]:at[1]]), text[:at[0]] + m.put + text[at[1]:]})
			}
		}
	}
	return all
}

// notices runs the tests in the order of noticing with each database spoilt by a
// statement, and tells whether one failed and what it said. The tests are this
// program, so nothing is compiled for a mutant; a mutant that leaves one waiting
// for ever is noticed when patience is over. rapid need not look for the smallest
// example of a failure.
func notices(ctx context.Context, self, statement string, patience time.Duration) (failed bool, said string, err error) {
	for _, tests := range noticing {
		cmd := exec.CommandContext(ctx, self, "-test.run", "^("+strings.Join(tests, "|")+")$", "-test.failfast",
			"-test.timeout", patience.String(), "-rapid.checks=15", "-rapid.shrinktime=1ms", "-rapid.nofailfile")
		cmd.Env = append(os.Environ(), mutantVariable+"="+statement)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit):
			return true, string(out), nil
		case err != nil:
			return false, "", err
		}
	}
	return false, "", nil
}

// T18: at least four of five mutants are noticed. A mutant's tests mostly wait for
// the database and for each other, so there are as many at once as processors.
func TestMutationGate(t *testing.T) {
	if os.Getenv(mutantVariable) != "" {
		t.Fatal("a mutant does not make mutants")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	failed, said, err := notices(t.Context(), self, "SELECT 1", 10*time.Minute)
	if failed || err != nil {
		t.Fatalf("the tests fail without a mutant: %v\n%s", err, said)
	}
	patience := time.Minute + 10*time.Since(began)
	conn, err := pgx.Connect(t.Context(), pgtest.NewURL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	var alive, dead atomic.Int64
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(runtime.NumCPU())
	for i, m := range makeMutants(t) {
		if i%*everyMutant != 0 || (*ofFunction != "" && m.function != *ofFunction) {
			continue
		}
		if _, err := conn.Exec(t.Context(), m.statement); err != nil {
			continue // it is no function: PostgreSQL has noticed
		}
		group.Go(func() error {
			failed, _, err := notices(ctx, self, m.statement, patience)
			switch {
			case err != nil:
				return err
			case failed:
				dead.Add(1)
			default:
				alive.Add(1)
				t.Logf("survived: %s: %s in: %s", m.function, m.change, m.line)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	share := float64(dead.Load()) / float64(max(1, alive.Load()+dead.Load()))
	t.Logf("%d of %d mutants were noticed: %.0f %%, in %s", dead.Load(), alive.Load()+dead.Load(), 100*share,
		time.Since(began).Round(time.Second))
	if share < *gate {
		t.Errorf("want %.0f %%", 100**gate)
	}
}
