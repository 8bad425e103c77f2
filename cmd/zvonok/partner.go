package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/topup"
)

type partnerCommands struct {
	Add  partnerAddCommand  `cmd:"" help:"Let a bank or a network of terminals take top-ups."`
	List partnerListCommand `cmd:"" help:"List the partners."`
}

type partnerAddCommand struct {
	Name         string   `required:"" help:"The name in its address, /pay/DIALECT/NAME: small letters, digits, '-', '_'."`
	Dialect      string   `required:"" enum:"osmp,sber" help:"How it speaks: ${enum}."`
	Payees       []string `required:"" help:"Payment codes of the payees it takes money for, as in 916,917."`
	Allow        []string `required:"" help:"Networks it calls from, as in 192.0.2.0/24."`
	User         string   `help:"Its name in Basic authentication."`
	PasswordFile string   `type:"existingfile" help:"File with its password." placeholder:"FILE"`
	SecretFile   string   `type:"existingfile" help:"File with the secret of its signatures (Sberbank's protocol 2)." placeholder:"FILE"`
	Show         string   `enum:"masked,short,full" default:"masked" help:"How much of the child's name its screens show: ${enum}."`
	Min          string   `default:"10" help:"Least payment, roubles."`
	Max          string   `default:"15000" help:"Greatest payment, roubles."`
	MayCancel    bool     `help:"It may take payments back while the money is there."`
	LayoutFile   string   `type:"existingfile" help:"Its registries' columns, as JSON (see the README); without it our own format." placeholder:"FILE"`
	TimeZone     string   `help:"The zone of the times it sends; Europe/Moscow when empty." placeholder:"ZONE"`
	JSON         bool     `name:"json" help:"Print JSON."`

	Codes map[topup.Outcome]int `mapsep:"," placeholder:"OUTCOME=NUMBER,..." help:"Where its numbers of answers differ from its dialect's, as in not_found=2,too_small=3 (the README names the outcomes)."`
}

// roubles reads a sum with or without kopecks.
func roubles(flag, text string) (money.Amount, error) {
	if !strings.Contains(text, ".") {
		text += ".00"
	}
	amount, err := money.Parse(text)
	if err != nil {
		return 0, usageError{fmt.Errorf("--%s: %w", flag, err)}
	}
	return amount, nil
}

func (p *partnerAddCommand) Run(ctx context.Context, c *console) error {
	partner := topup.NewPartner{
		Name: p.Name, Dialect: topup.Dialect(p.Dialect), PaymentCodes: p.Payees, Login: p.User, Show: topup.Show(p.Show),
		MayCancel: p.MayCancel, Codes: p.Codes, TimeZone: p.TimeZone,
	}
	for _, network := range p.Allow {
		prefix, err := netip.ParsePrefix(network)
		if err != nil {
			return usageError{fmt.Errorf("--allow: %q is not a network such as 192.0.2.0/24", network)}
		}
		partner.Allow = append(partner.Allow, prefix)
	}
	var err error
	if partner.Min, err = roubles("min", p.Min); err != nil {
		return err
	}
	if partner.Max, err = roubles("max", p.Max); err != nil {
		return err
	}
	for file, value := range map[string]*string{p.PasswordFile: &partner.Password, p.SecretFile: &partner.Secret} {
		if file == "" {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		*value = strings.TrimRight(string(data), "\r\n")
	}
	if p.LayoutFile != "" {
		if partner.Layout, err = readLayout(p.LayoutFile); err != nil {
			return fmt.Errorf("--layout-file: %w", err)
		}
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		added, err := topup.AddPartner(ctx, d.pool, partner, time.Now())
		if err != nil {
			return err
		}
		if p.JSON {
			return printJSON(c.out, added)
		}
		_, err = fmt.Fprintf(c.out, "partner %s: its endpoint is /pay/%s/%s\n", added.Name, added.Dialect, added.Name)
		return err
	})
}

// readLayout reads a layout. A key that there is not is an error: a layout read
// without it would misread the bank's sums and times.
func readLayout(path string) (*topup.Layout, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var layout topup.Layout
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&layout); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one object")
	}
	return &layout, nil
}

type partnerListCommand struct {
	JSON bool `name:"json" help:"Print JSON."`
}

func (p *partnerListCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		partners, err := topup.ListPartners(ctx, d.pool)
		if err != nil {
			return err
		}
		if p.JSON {
			return printJSON(c.out, partners)
		}
		rows := make([][]any, 0, len(partners))
		for _, partner := range partners {
			rows = append(rows, []any{
				partner.Name, partner.Dialect, strings.Join(partner.PaymentCodes, ","), partner.Show, partner.Min, partner.Max,
			})
		}
		return table(c.out, []any{"NAME", "DIALECT", "PAYEES", "SHOWS", "MIN", "MAX"}, rows)
	})
}

type ledgerReconcileCommand struct {
	Partner  string `required:"" help:"Whose registry it is."`
	File     string `arg:"" type:"existingfile" help:"The registry file."`
	Replaces int    `placeholder:"NUMBER" help:"The file corrects number NUMBER of the same day and is taken in its place: what was settled by that one is taken back, and nothing is credited twice."`
	By       string `help:"Who brings it; it is kept. Default: the user of the system."`
	JSON     bool   `name:"json" help:"Print JSON."`
}

func (l *ledgerReconcileCommand) Run(ctx context.Context, c *console) error {
	if l.Replaces < 0 {
		return usageError{errors.New("--replaces: must be the number of a file")}
	}
	by, err := whoOr(l.By, "")
	if err != nil {
		return err
	}
	file, err := os.Open(l.File)
	if err != nil {
		return err
	}
	defer file.Close()
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		jobs, err := insertClient(d.pool)
		if err != nil {
			return err
		}
		report, err := topup.Reconcile(ctx, d.pool, ledger.NewBook(jobs), l.Partner,
			topup.File{Name: filepath.Base(l.File), Data: file, By: by, Replaces: l.Replaces}, time.Now())
		if bad, ok := errors.AsType[*topup.BadRegistry](err); ok {
			return l.printBad(c, bad)
		}
		if err != nil {
			return err
		}
		if l.JSON {
			err = printJSON(c.out, report)
		} else {
			_, err = report.WriteTo(c.out)
		}
		if err == nil && report.OpenCount > 0 {
			return printedError{errors.New("the registry and the books differ")}
		}
		return err
	})
}

// printBad names the lines of a registry that cannot be read. Nothing of it was taken.
func (l *ledgerReconcileCommand) printBad(c *console, bad *topup.BadRegistry) error {
	if l.JSON {
		if err := printJSON(c.out, bad); err != nil {
			return err
		}
	} else {
		for _, p := range bad.Problems {
			fmt.Fprintf(c.out, "%s, line %d: %s\n", filepath.Base(l.File), p.Line, p.Reason)
		}
		if more := bad.Found - len(bad.Problems); more > 0 {
			fmt.Fprintf(c.out, "and %d more\n", more)
		}
	}
	return printedError{fmt.Errorf("the registry was not taken: %w", bad)}
}
