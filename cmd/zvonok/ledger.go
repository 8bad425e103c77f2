package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"zvonok/access/reader"
	"zvonok/ledger"
	"zvonok/ledger/meal"
	"zvonok/ledger/money"
	"zvonok/ledger/topup"
)

type ledgerCommands struct {
	Verify    ledgerVerifyCommand    `cmd:"" help:"Check every invariant of the books; prints ok with counts and control sums, or each violation."`
	Reconcile ledgerReconcileCommand `cmd:"" help:"Compare a bank's registry with the books; what only the bank has is credited."`
	Breaks    ledgerBreaksCommand    `cmd:"" help:"List what registries and books differ in and nobody has settled yet, and days whose registry has not come; exit 1 when there is any."`
	Resolve   ledgerResolveCommand   `cmd:"" help:"Settle one line that breaks lists."`
	Suspense  ledgerSuspenseCommand  `cmd:"" help:"List the payments that found no account to go to."`
	Release   ledgerReleaseCommand   `cmd:"" help:"Move a payment out of the suspense account to the account it was meant for."`
	Refund    ledgerRefundCommands   `cmd:"" help:"Give money back to who paid it; it takes two persons."`
	Close     ledgerCloseCommand     `cmd:"" help:"Close and seal accounting days; the gateway does it each night."`
	Reopen    ledgerReopenCommand    `cmd:"" help:"Open a closed day and all later ones; their seals are void."`
	Closings  ledgerClosingsCommand  `cmd:"" help:"What was done to accounting days, the newest first: closed, sealed, opened again, by whom and why, with the seals."`
	Day       ledgerDayCommand       `cmd:"" help:"What a closed day holds: its seal, what each account moved, and what came late for an earlier day."`
	Totals    ledgerTotalsCommand    `cmd:"" help:"The trial balance: what each account of banks, providers and the city has moved and owes, and what wallets hold, now; together it is zero."`
	Account   ledgerAccountCommands  `cmd:"" help:"One account: what is in it, and whether it is open."`
	Statement ledgerStatementCommand `cmd:"" help:"What came into an account and left it, the newest first."`
	Move      ledgerMoveCommand      `cmd:"" help:"Move a child with its account and money to another school; see the README for the steps."`
}

// withBook runs a command's work in one transaction, with a book that announces
// what it does as the gateway would.
func (c *console) withBook(ctx context.Context, work func(ctx context.Context, tx pgx.Tx, book *ledger.Book) error) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		jobs, err := insertClient(d.pool)
		if err != nil {
			return err
		}
		book := ledger.NewBook(jobs)
		return pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error { return work(ctx, tx, book) })
	})
}

// decided is who an entry of the accountants is put down to. A name can be typed
// by anybody, so the system's account under which it was typed is kept with it.
type decided struct {
	By string `required:"" placeholder:"NAME" help:"Who decides, by name: a refund needs two. It is kept, with the system's account it was typed under."`
}

func (d decided) who() (string, error) { return whoOr(d.By, "--by: give the name of who decides") }

// maxName is how many letters the name of who decides may have.
const maxName = 64

// whoOr returns a name and the account of the system, as in "Olga (os:root)": the
// account alone when there is no name, unless that is wrong with the words of without.
func whoOr(name, without string) (string, error) {
	name = strings.Join(strings.Fields(name), " ")
	account := "os:unknown"
	if u, err := user.Current(); err == nil {
		account = "os:" + u.Username
	}
	if account == "os:root" && os.Getenv("SUDO_USER") != "" {
		account = "os:" + os.Getenv("SUDO_USER")
	}
	account = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, account)
	account = strings.ToValidUTF8(account[:min(len(account), 48)], "")
	switch {
	case name == "" && without != "":
		return "", usageError{errors.New(without)}
	case name == "":
		return account, nil
	case utf8.RuneCountInString(name) > maxName || strings.ContainsFunc(name, unicode.IsControl) || strings.Contains(name, " (os:"):
		return "", usageError{fmt.Errorf("--by: a name has 1 to %d letters", maxName)}
	}
	return name + " (" + account + ")", nil
}

// parseDay reads a date of the command line.
func parseDay(flag, text string) (time.Time, error) {
	day, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return day, usageError{fmt.Errorf("%s: %q is not a date like 2026-11-22", flag, text)}
	}
	return day, nil
}

type ledgerVerifyCommand struct {
	JSON bool `name:"json" help:"Print JSON."`
}

func (l *ledgerVerifyCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		report, err := ledger.Verify(ctx, d.pool, bookChecks()...)
		if err != nil {
			return err
		}
		sequences, err := reader.Sequences(ctx, d.pool)
		if err != nil {
			return err
		}
		if l.JSON {
			err = printJSON(c.out, struct {
				ledger.VerifyReport
				Devices []reader.Sequence `json:"devices"`
			}{report, sequences})
		} else {
			_, err = report.WriteTo(c.out)
			if len(sequences) == 0 {
				fmt.Fprintln(c.out, "note I14: no number of a device is missing, and none came with two contents")
			}
			for _, s := range sequences {
				fmt.Fprintf(c.out, "note I14: device %d (%s): %d numbers have not arrived, %d came with two contents\n",
					s.Device, s.Name, s.Missing, s.Conflicts)
			}
		}
		if err == nil && !report.OK() {
			return printedError{errors.New("the books are wrong")}
		}
		return err
	})
}

type ledgerBreaksCommand struct {
	Partner string `help:"Only this partner's."`
	JSON    bool   `name:"json" help:"Print JSON."`
}

func (l *ledgerBreaksCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		breaks, err := topup.Breaks(ctx, d.pool, l.Partner, time.Now())
		if err != nil {
			return err
		}
		if l.JSON {
			err = printJSON(c.out, breaks)
		} else {
			rows := make([][]any, 0, len(breaks))
			for _, b := range breaks {
				state := "waits for a later registry"
				if b.Disputed {
					state = "to be settled"
				}
				id, payment := fmt.Sprint(b.ID), b.Txn
				switch b.State {
				case topup.NoRegistry:
					id, payment, state = "-", fmt.Sprintf("%d of that day", b.Payments), "ask the bank for its registry"
				case topup.OnItsWay:
					id, state = "-", fmt.Sprintf("the bank is to give it: refund end %d", b.ID)
					if b.Disputed {
						state = fmt.Sprintf("ask the bank what became of it: refund end %d", b.ID)
					}
				}
				rows = append(rows, []any{id, b.Since.Format(time.DateOnly), b.Partner, b.State, payment, b.Bank, b.Ours, state})
			}
			err = table(c.out, []any{"ID", "DAY", "PARTNER", "LINE IS", "PAYMENT", "BANK", "OURS", "STATE"}, rows)
		}
		if err == nil && len(breaks) > 0 {
			return printedError{errors.New("registries and books differ")}
		}
		return err
	})
}

type ledgerResolveCommand struct {
	answering
	ID  int64  `arg:"" help:"The line's id, as breaks lists it."`
	How string `required:"" enum:"written_off,reversed,posted,agreed" help:"written_off books the difference as a loss or gain, reversed takes our payment back, posted books one again that was taken back and that the bank has after all, agreed changes nothing."`
	decided
}

func (l *ledgerResolveCommand) Run(ctx context.Context, c *console) error {
	by, err := l.who()
	if err != nil {
		return err
	}
	return c.withBook(ctx, func(ctx context.Context, tx pgx.Tx, book *ledger.Book) error {
		if err := topup.ResolveBreak(ctx, tx, book, l.ID, topup.Resolution(l.How), by, time.Now()); err != nil {
			return err
		}
		return l.print(c, map[string]any{"id": l.ID, "how": l.How}, "line %d: %s", l.ID, l.How)
	})
}

type ledgerSuspenseCommand struct {
	JSON bool `name:"json" help:"Print JSON."`
}

func (l *ledgerSuspenseCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		list, err := topup.Suspense(ctx, d.pool)
		if err != nil {
			return err
		}
		if l.JSON {
			return printJSON(c.out, list)
		}
		rows := make([][]any, 0, len(list))
		var sum money.Amount
		for _, s := range list {
			sum += s.Sum
			rows = append(rows, []any{s.BookedAt.Local().Format(moment), s.Partner, s.Txn, s.Account, s.Sum, s.Reason})
		}
		if err := table(c.out, []any{"BOOKED", "PARTNER", "PAYMENT", "ACCOUNT", "SUM", "BECAUSE"}, rows); err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.out, "%d payments, %s\n", len(list), sum)
		return err
	})
}

type ledgerReleaseCommand struct {
	answering
	Partner string `required:"" help:"Whose payment it is."`
	Txn     string `required:"" help:"The bank's id of the payment."`
	Account string `required:"" help:"The account it was meant for. Back to who paid goes a refund."`
	decided
}

func (l *ledgerReleaseCommand) Run(ctx context.Context, c *console) error {
	by, err := l.who()
	if err != nil {
		return err
	}
	return c.withBook(ctx, func(ctx context.Context, tx pgx.Tx, book *ledger.Book) error {
		order := topup.Release{Partner: l.Partner, Txn: l.Txn, Account: l.Account, By: by}
		if err := topup.ReleasePayment(ctx, tx, book, order, time.Now()); err != nil {
			return err
		}
		return l.print(c, map[string]any{"partner": l.Partner, "txn": l.Txn, "account": l.Account},
			"payment %s of %s: credited to %s", l.Txn, l.Partner, l.Account)
	})
}

type ledgerRefundCommands struct {
	Ask     refundAskCommand     `cmd:"" help:"Ask for a refund of an account or of a payment in suspense; nothing is booked yet."`
	Pay     refundPayCommand     `cmd:"" help:"Book a refund that somebody else has asked for."`
	Decline refundDeclineCommand `cmd:"" help:"End a refund that will not be paid."`
	End     refundEndCommand     `cmd:"" help:"Say how a refund ended that was paid; until then breaks lists it."`
	List    refundListCommand    `cmd:"" help:"List the refunds that wait for a second person or are on their way."`
}

type refundAskCommand struct {
	Partner string `required:"" help:"The bank through which the money goes back."`
	Account string `help:"The account it is taken from." xor:"of"`
	Txn     string `help:"The bank's id of a payment in suspense." xor:"of"`
	Sum     string `help:"Roubles; without it all there is."`
	Reason  string `required:"" help:"Why; it is kept."`
	decided
	JSON bool `name:"json" help:"Print JSON."`
}

func (r *refundAskCommand) Run(ctx context.Context, c *console) error {
	by, err := r.who()
	if err != nil {
		return err
	}
	ask := topup.RefundAsk{Partner: r.Partner, Account: r.Account, Txn: r.Txn, Reason: r.Reason, By: by}
	if r.Sum != "" {
		var err error
		if ask.Amount, err = roubles("sum", r.Sum); err != nil {
			return err
		}
	}
	return c.withBook(ctx, func(ctx context.Context, tx pgx.Tx, _ *ledger.Book) error {
		id, err := topup.AskRefund(ctx, tx, ask, time.Now())
		if err != nil {
			return err
		}
		if r.JSON {
			return printJSON(c.out, map[string]any{"id": id})
		}
		_, err = fmt.Fprintf(c.out, "refund %d waits: zvonok ledger refund pay %d --by SOMEBODY-ELSE\n", id, id)
		return err
	})
}

type refundPayCommand struct {
	answering
	ID int64 `arg:"" help:"The refund's id."`
	decided
}

func (r *refundPayCommand) Run(ctx context.Context, c *console) error {
	by, err := r.who()
	if err != nil {
		return err
	}
	return c.withBook(ctx, func(ctx context.Context, tx pgx.Tx, book *ledger.Book) error {
		if err := topup.PayRefund(ctx, tx, book, r.ID, by, time.Now()); err != nil {
			return err
		}
		return r.print(c, map[string]any{"id": r.ID, "state": "paid"}, "refund %d: paid", r.ID)
	})
}

type refundDeclineCommand struct {
	answering
	ID int64 `arg:"" help:"The refund's id."`
	decided
}

func (r *refundDeclineCommand) Run(ctx context.Context, c *console) error {
	by, err := r.who()
	if err != nil {
		return err
	}
	return c.withBook(ctx, func(ctx context.Context, tx pgx.Tx, _ *ledger.Book) error {
		if err := topup.DeclineRefund(ctx, tx, r.ID, by, time.Now()); err != nil {
			return err
		}
		return r.print(c, map[string]any{"id": r.ID, "state": "declined"}, "refund %d: declined", r.ID)
	})
}

type refundEndCommand struct {
	answering
	ID  int64  `arg:"" help:"The refund's id."`
	How string `required:"" enum:"given,returned" help:"given: the bank kept it back from what it transfers, or was sent it; returned: it could not be given and goes back to where it was taken from."`
	decided
}

func (r *refundEndCommand) Run(ctx context.Context, c *console) error {
	by, err := r.who()
	if err != nil {
		return err
	}
	return c.withBook(ctx, func(ctx context.Context, tx pgx.Tx, book *ledger.Book) error {
		if err := topup.EndRefund(ctx, tx, book, r.ID, topup.RefundEnd(r.How), by, time.Now()); err != nil {
			return err
		}
		return r.print(c, map[string]any{"id": r.ID, "state": r.How}, "refund %d: %s", r.ID, r.How)
	})
}

type refundListCommand struct {
	All  bool `help:"Also those that have ended or were declined."`
	JSON bool `name:"json" help:"Print JSON."`
}

func (r *refundListCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		refunds, err := topup.Refunds(ctx, d.pool, r.All)
		if err != nil {
			return err
		}
		if r.JSON {
			return printJSON(c.out, refunds)
		}
		rows := make([][]any, 0, len(refunds))
		for _, f := range refunds {
			of := "account " + f.Account
			if f.Txn != "" {
				of = "payment " + f.Txn
			}
			rows = append(rows, []any{f.ID, f.Partner, of, f.Amount, f.State, f.AskedBy, f.DecidedBy, f.EndedBy, f.Reason})
		}
		return table(c.out, []any{"ID", "PARTNER", "OF", "SUM", "STATE", "ASKED BY", "DECIDED BY", "ENDED BY", "REASON"}, rows)
	})
}

type ledgerCloseCommand struct {
	Through string `required:"" help:"The last day to close, as in 2026-11-22."`
	decided
	JSON bool `name:"json" help:"Print JSON."`
}

func (l *ledgerCloseCommand) Run(ctx context.Context, c *console) error {
	by, err := l.who()
	if err != nil {
		return err
	}
	through, err := parseDay("--through", l.Through)
	if err != nil {
		return err
	}
	if !through.Before(time.Now().Add(-24 * time.Hour)) {
		return usageError{fmt.Errorf("--through: %s is not over everywhere", l.Through)}
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		days, err := ledger.CloseDays(ctx, d.pool, through, by)
		if err != nil {
			return err
		}
		if l.JSON {
			return printJSON(c.out, days)
		}
		rows := make([][]any, 0, len(days))
		for _, day := range days {
			rows = append(rows, []any{day.Day.Format(time.DateOnly), day.Postings, day.Amount, day.Late, hex.EncodeToString(day.Seal)})
		}
		return table(c.out, []any{"DAY", "POSTINGS", "SUM", "LATE", "SEAL"}, rows)
	})
}

type ledgerReopenCommand struct {
	answering
	Day string `arg:"" help:"The first day to open again."`
	decided
	Reason string `required:"" help:"Why; it is kept."`
}

func (l *ledgerReopenCommand) Run(ctx context.Context, c *console) error {
	by, err := l.who()
	if err != nil {
		return err
	}
	if strings.TrimSpace(l.Reason) == "" {
		return usageError{errors.New("--reason: say why; it is kept")}
	}
	day, err := parseDay("DAY", l.Day)
	if err != nil {
		return err
	}
	return c.withBook(ctx, func(ctx context.Context, tx pgx.Tx, _ *ledger.Book) error {
		if err := ledger.ReopenDay(ctx, tx, day, by, l.Reason); err != nil {
			return err
		}
		return l.print(c, map[string]any{"first_open": l.Day}, "%s and all later days are open again; the gateway closes them at night", l.Day)
	})
}

type ledgerClosingsCommand struct {
	Day   string `help:"Only what was done to this day, as in 2026-11-22."`
	Limit int    `default:"50" help:"How many lines."`
	JSON  bool   `name:"json" help:"Print JSON."`
}

func (l *ledgerClosingsCommand) Run(ctx context.Context, c *console) error {
	if l.Limit < 1 || l.Limit > 100_000 {
		return usageError{errors.New("--limit: must be 1 to 100000")}
	}
	var day time.Time
	if l.Day != "" {
		var err error
		if day, err = parseDay("--day", l.Day); err != nil {
			return err
		}
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		closings, err := ledger.Closings(ctx, d.pool, day, l.Limit)
		if err != nil {
			return err
		}
		if l.JSON {
			return printJSON(c.out, closings)
		}
		rows := make([][]any, 0, len(closings))
		for _, done := range closings {
			rows = append(rows, []any{
				done.At.Local().Format(moment), done.Day.Format(time.DateOnly), done.Action, done.Actor, hex.EncodeToString(done.Seal), done.Reason,
			})
		}
		return table(c.out, []any{"AT", "DAY", "WAS", "BY", "SEAL", "REASON"}, rows)
	})
}

type ledgerStatementCommand struct {
	Account string `arg:"" help:"The account number."`
	Limit   int    `default:"50" help:"How many movements."`
	JSON    bool   `name:"json" help:"Print JSON."`
}

func (l *ledgerStatementCommand) Run(ctx context.Context, c *console) error {
	if l.Limit < 1 || l.Limit > 100_000 {
		return usageError{errors.New("--limit: must be 1 to 100000")}
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		w, err := walletNumbered(ctx, d, l.Account)
		if err != nil {
			return err
		}
		movements, err := ledger.Statement(ctx, d.pool, w.Account, 0, l.Limit)
		if err != nil {
			return err
		}
		if l.JSON {
			return printJSON(c.out, statementOf(w, movements))
		}
		rows := make([][]any, 0, len(movements))
		for _, m := range movements {
			rows = append(rows, []any{m.Number, m.OccurredAt.Local().Format(moment), m.Day.Format(time.DateOnly), m.Kind, m.Source, m.Amount, m.After})
		}
		if err := table(c.out, []any{"NO", "HAPPENED", "DAY", "KIND", "SOURCE", "SUM", "AFTER"}, rows); err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.out, "account %s: %s, of it held %s\n", w.Number, w.Posted, w.Held)
		return err
	})
}

// accountStatement is a statement as JSON.
type accountStatement struct {
	Account   string         `json:"account"`
	Balance   money.Amount   `json:"balance"`
	Held      money.Amount   `json:"held"`
	Movements []movementLine `json:"movements"`
}

type movementLine struct {
	Number   int32        `json:"number"`
	Posting  int64        `json:"posting"`
	Event    int64        `json:"event"`
	Kind     ledger.Kind  `json:"kind"`
	Source   string       `json:"source"`
	Sum      money.Amount `json:"sum"`
	After    money.Amount `json:"after"`
	Happened time.Time    `json:"happened_at"`
	Booked   time.Time    `json:"booked_at"`
	Day      string       `json:"day"`
	Forced   bool         `json:"forced"`
}

func statementOf(w ledger.Balance, movements []ledger.Movement) accountStatement {
	s := accountStatement{Account: w.Number, Balance: w.Posted, Held: w.Held, Movements: []movementLine{}}
	for _, m := range movements {
		s.Movements = append(s.Movements, movementLine{
			Number: m.Number, Posting: int64(m.Posting), Event: int64(m.Event), Kind: m.Kind, Source: m.Source, Sum: m.Amount,
			After: m.After, Happened: m.OccurredAt, Booked: m.PostedAt, Day: m.Day.Format(time.DateOnly), Forced: m.Forced,
		})
	}
	return s
}

type ledgerMoveCommand struct {
	Person string `arg:"" help:"The child's person_id of the registry."`
	To     string `required:"" help:"The org_id of the school it goes to."`
	Group  string `help:"Its class or group there."`
	decided
	JSON bool `name:"json" help:"Print JSON."`
}

func (l *ledgerMoveCommand) Run(ctx context.Context, c *console) error {
	by, err := l.who()
	if err != nil {
		return err
	}
	return c.withBook(ctx, func(ctx context.Context, tx pgx.Tx, book *ledger.Book) error {
		people, err := ledger.PeopleByCode(ctx, tx, []string{l.Person})
		if err != nil {
			return err
		}
		organisations, err := ledger.OrganisationsByCode(ctx, tx, []string{l.To})
		if err != nil {
			return err
		}
		person, known := people[l.Person]
		if !known {
			return fmt.Errorf("there is no person %q in the register", l.Person)
		}
		to, known := organisations[l.To]
		if !known {
			return fmt.Errorf("there is no organisation %q in the register", l.To)
		}
		freed, err := meal.NewCanteen(book, nil).Move(ctx, tx, person, to, l.Group, by)
		if err != nil {
			return err
		}
		balances, err := ledger.Balances(ctx, tx, []ledger.PersonID{person})
		if err != nil {
			return err
		}
		w := balances[person]
		if l.JSON {
			return printJSON(c.out, map[string]any{"account": w.Number, "balance": w.Posted, "orders_freed": freed})
		}
		_, err = fmt.Fprintf(c.out, "person %s belongs to %s; account %s went along with %s; %d meals ordered at the old place are cancelled\n",
			l.Person, l.To, w.Number, w.Posted, freed)
		return err
	})
}
