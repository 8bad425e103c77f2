package main

import (
	"context"
	"fmt"
	"time"

	"zvonok/ledger"
	"zvonok/ledger/money"
)

type ledgerAccountCommands struct {
	Show  ledgerAccountShowCommand  `cmd:"" help:"What is in an account, now or at a moment, and when it was closed or opened."`
	Close ledgerAccountCloseCommand `cmd:"" help:"Close an account: it takes no top-ups and pays for no purchases. A payment that a bank has taken already goes to suspense; its money is given back by a refund."`
	Open  ledgerAccountOpenCommand  `cmd:"" help:"Open a closed account again."`
}

// walletNumbered finds the account of a command line.
func walletNumbered(ctx context.Context, d *database, number string) (ledger.Balance, error) {
	wallets, err := ledger.WalletsByNumber(ctx, d.pool, []string{number})
	if err != nil {
		return ledger.Balance{}, err
	}
	w, found := wallets[number]
	if !found {
		return ledger.Balance{}, fmt.Errorf("there is no account %q", number)
	}
	return w, nil
}

type ledgerAccountShowCommand struct {
	Account string `arg:"" help:"The account number."`
	At      string `placeholder:"TIME" help:"What was in it then, by the order of booking: a time like 2026-11-22T14:05:00+03:00, or a date, which is the end of that day."`
	JSON    bool   `name:"json" help:"Print JSON."`
}

// accountState is an account as JSON.
type accountState struct {
	Account   string                   `json:"account"`
	Balance   money.Amount             `json:"balance"`
	Held      money.Amount             `json:"held"`
	Available money.Amount             `json:"available"`
	DebtFloor money.Amount             `json:"debt_floor"`
	Movements int32                    `json:"movements"`
	Closed    bool                     `json:"closed"`
	Log       []ledger.ClosingOfWallet `json:"log"`
	At        *time.Time               `json:"at,omitempty"`
	BalanceAt *money.Amount            `json:"balance_at,omitempty"`
}

func (l *ledgerAccountShowCommand) Run(ctx context.Context, c *console) error {
	at, err := parseMoment("--at", l.At)
	if err != nil {
		return err
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		w, err := walletNumbered(ctx, d, l.Account)
		if err != nil {
			return err
		}
		log, err := ledger.ClosingsOfWallet(ctx, d.pool, w.Account)
		if err != nil {
			return err
		}
		state := accountState{
			Account: w.Number, Balance: w.Posted, Held: w.Held, Available: w.Available(), DebtFloor: w.DebtFloor,
			Movements: w.Moves, Closed: w.Closed, Log: log,
		}
		if !at.IsZero() {
			was, err := ledger.BalanceAt(ctx, d.pool, w.Account, at)
			if err != nil {
				return err
			}
			state.At, state.BalanceAt = &at, &was
		}
		if l.JSON {
			return printJSON(c.out, state)
		}
		what := "open"
		if w.Closed {
			what = "closed"
		}
		fmt.Fprintf(c.out, "account %s (%s): %s, of it held %s; hot meals may take it down to %s; %d movements\n",
			w.Number, what, w.Posted, w.Held, w.DebtFloor, w.Moves)
		if state.At != nil {
			fmt.Fprintf(c.out, "at %s it was %s\n", at.Local().Format(moment), *state.BalanceAt)
		}
		if len(log) == 0 {
			return nil
		}
		rows := make([][]any, len(log))
		for i, done := range log {
			rows[i] = []any{done.At.Local().Format(moment), map[bool]string{true: "closed", false: "opened"}[done.Closed], done.Actor, done.Reason}
		}
		return table(c.out, []any{"AT", "WAS", "BY", "REASON"}, rows)
	})
}

// parseMoment reads a time of the command line, or a date, which stands for its
// end by the clocks of the books. Empty is the zero time.
func parseMoment(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	day, err := time.ParseInLocation(time.DateOnly, text, ledger.NewBook(nil).Zone)
	if err != nil {
		return time.Time{}, usageError{
			fmt.Errorf("%s: %q is neither a time like 2026-11-22T14:05:00+03:00 nor a date like 2026-11-22", flag, text),
		}
	}
	return day.AddDate(0, 0, 1).Add(-time.Microsecond), nil
}

type ledgerAccountCloseCommand struct {
	Account string `arg:"" help:"The account number."`
	Reason  string `required:"" help:"Why; it is kept."`
	JSON    bool   `name:"json" help:"Print JSON."`
	decided
}

func (l *ledgerAccountCloseCommand) Run(ctx context.Context, c *console) error {
	return setClosed(ctx, c, l.Account, true, l.decided, l.Reason, l.JSON)
}

type ledgerAccountOpenCommand struct {
	Account string `arg:"" help:"The account number."`
	Reason  string `required:"" help:"Why; it is kept."`
	JSON    bool   `name:"json" help:"Print JSON."`
	decided
}

func (l *ledgerAccountOpenCommand) Run(ctx context.Context, c *console) error {
	return setClosed(ctx, c, l.Account, false, l.decided, l.Reason, l.JSON)
}

func setClosed(ctx context.Context, c *console, number string, closed bool, by decided, reason string, asJSON bool) error {
	who, err := by.who()
	if err != nil {
		return err
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		w, err := walletNumbered(ctx, d, number)
		if err != nil {
			return err
		}
		what := map[bool]string{true: "closed", false: "open"}[closed]
		if w.Closed == closed {
			return fmt.Errorf("account %s is %s already", w.Number, what)
		}
		if err := ledger.SetClosed(ctx, d.pool, []ledger.AccountID{w.Account}, closed, who, reason); err != nil {
			return err
		}
		if asJSON {
			return printJSON(c.out, map[string]any{"account": w.Number, "closed": closed, "balance": w.Posted})
		}
		_, err = fmt.Fprintf(c.out, "account %s is %s; in it are %s\n", w.Number, what, w.Posted)
		return err
	})
}
