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
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/pg/pgtest"
)

// The mutation gate (T18, `make mutate`): the functions by which the book is
// written are changed one operator at a time, and the tests have to notice. It
// asks the tests, not the program, whether they are any good.
var (
	everyMutant = flag.Int("every", 1, "try every n-th mutant only")
	gate        = flag.Float64("gate", 0.8, "the share of mutants that must be noticed")
)

// mutantVariable holds the statement that makes a mutant in each test's database.
const mutantVariable = "ZVONOK_LEDGER_MUTANT"

// noticing are the tests that a mutant has to get past.
const noticing = "^(TestVerdicts|TestThresholds|TestTheBookBehavesLikeASimpleModel|TestARepeatAnswersWithTheFirstPosting|" +
	"TestACancelledIDIsNeverBooked|TestAClosedWalletTakesNothingButWhatIsOwed|TestHeldMoneyIsNotSpent|TestManyHoldsAtOnceSetAsideOnlyWhatIsThere|TestTheAccountingDay|" +
	"TestAClosedDayIsSealedAndSumsUp|TestReopeningADayVoidsItsSealAndLaterOnes|TestOneIDFromManyClientsIsOneCredit|" +
	"TestManyPurchasesAtOnceSpendOnlyWhatIsThere|TestOverlappingBatchesBookEachIDOnce|TestEachPostingIsReversedOnce|" +
	"TestOppositeTransfersNeverDeadlock|TestFoldingLosesNothingToALongTransaction|TestFoldingStartsOverInARestoredCluster|" +
	"TestARandomWalkRoundThresholdsMissesNoCrossing|TestClosingADayWhileWritersPost|TestClosingADayWaitsForALatePosting|TestTheDebtFloorFollowsTheOrganisation)$"

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
	"debit_allowed", "crossed", "body_hash", "enter_days", "post_one", "post_batch", "cancel_ids", "hold_money", "end_holds",
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

// T18: at least four of five mutants are noticed.
func TestMutationGate(t *testing.T) {
	if os.Getenv(mutantVariable) != "" {
		t.Fatal("a mutant does not make mutants")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	noticed := func(statement string) (bool, string) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, self, "-test.run", noticing, "-test.failfast", "-rapid.checks=15", "-rapid.nofailfile")
		cmd.Env = append(os.Environ(), mutantVariable+"="+statement)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return err != nil, string(out)
	}
	if failed, out := noticed("SELECT 1"); failed {
		t.Fatalf("the tests fail without a mutant:\n%s", out)
	}
	conn, err := pgx.Connect(t.Context(), pgtest.NewURL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	alive, dead := 0, 0
	for i, m := range makeMutants(t) {
		if i%*everyMutant != 0 {
			continue
		}
		if _, err := conn.Exec(t.Context(), m.statement); err != nil {
			continue // it is no function: PostgreSQL has noticed
		}
		if failed, _ := noticed(m.statement); failed {
			dead++
			continue
		}
		alive++
		t.Logf("survived: %s: %s in: %s", m.function, m.change, m.line)
	}
	share := float64(dead) / float64(max(1, alive+dead))
	t.Logf("%d of %d mutants were noticed: %.0f %%", dead, alive+dead, 100*share)
	if share < *gate {
		t.Errorf("want %.0f %%", 100**gate)
	}
}
