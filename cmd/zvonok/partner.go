package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/topup"
)

type partnerCommands struct {
	Add     partnerAddCommand     `cmd:"" help:"Let a bank or a network of terminals take top-ups."`
	Set     partnerSetCommand     `cmd:"" help:"Change settings of a partner, all that are named or, when one cannot be, none; what is not named stays. Running gateways follow within two seconds."`
	Disable partnerDisableCommand `cmd:"" help:"Refuse a partner's requests, as those of an unknown one, within two seconds. Its registries are reconciled and its refunds go on."`
	Enable  partnerEnableCommand  `cmd:"" help:"Answer a disabled partner's requests again, within two seconds."`
	List    partnerListCommand    `cmd:"" help:"List the partners."`
	Log     partnerLogCommand     `cmd:"" help:"The last 200 changes of a partner, the newest first: which settings, when and by whom."`
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
	if amount <= 0 { // zero would be taken for what holds without the flag
		return 0, usageError{fmt.Errorf("--%s: must be above zero", flag)}
	}
	return amount, nil
}

// secretOf reads a password or a secret. An empty file is an error: without
// either, requests would be trusted for their address alone.
func secretOf(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(data), "\r\n")
	if secret == "" {
		return "", fmt.Errorf("%s is empty", file)
	}
	return secret, nil
}

func (p *partnerAddCommand) Run(ctx context.Context, c *console) error {
	partner := topup.NewPartner{
		Name: p.Name, Dialect: topup.Dialect(p.Dialect), PaymentCodes: p.Payees, Login: p.User, Show: topup.Show(p.Show),
		MayCancel: p.MayCancel, Codes: p.Codes, TimeZone: p.TimeZone,
	}
	var err error
	if partner.Allow, err = networks("--allow", p.Allow); err != nil {
		return usageError{err}
	}
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
		if *value, err = secretOf(file); err != nil {
			return err
		}
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

type partnerSetCommand struct {
	Partner      string   `arg:"" name:"name" help:"Whose settings they are (zvonok partner list)."`
	Payees       []string `help:"Payment codes of the payees it takes money for, as in 916,917, instead of those it has; a registry that names another payee is not taken."`
	Allow        []string `help:"Networks it calls from, as in 192.0.2.0/24, instead of those it has."`
	User         *string  `help:"Its name in Basic authentication; its password stays when none is given." placeholder:"NAME"`
	PasswordFile string   `type:"existingfile" help:"File with its password; the one before is refused." placeholder:"FILE"`
	SecretFile   string   `type:"existingfile" help:"File with the secret of its signatures (Sberbank's protocol 2)." placeholder:"FILE"`
	Show         *string  `help:"How much of the child's name its screens show: masked, short, full." placeholder:"HOW"`
	Min          *string  `help:"Least payment, roubles." placeholder:"ROUBLES"`
	Max          *string  `help:"Greatest payment, roubles." placeholder:"ROUBLES"`
	MayCancel    *bool    `negatable:"" help:"It may take payments back while the money is there, or may no longer."`
	LayoutFile   string   `type:"existingfile" help:"Its registries' columns, as JSON (see the README)." placeholder:"FILE"`
	TimeZone     *string  `help:"The zone of the times it sends." placeholder:"ZONE"`
	Without      []string `enum:"user,secret,codes,layout" help:"What it has no longer, of ${enum}: Basic authentication, signatures, its own numbers of answers (its dialect's hold), its registries' columns (our own format holds)."`
	By           string   `help:"Who changes it; it is kept. Default: the user of the system." placeholder:"NAME"`
	JSON         bool     `name:"json" help:"Print JSON."`

	Codes map[topup.Outcome]int `mapsep:"," placeholder:"OUTCOME=NUMBER,..." help:"Where its numbers of answers differ from its dialect's, as in not_found=2,too_small=3, instead of those it has."`
}

func (p *partnerSetCommand) Run(ctx context.Context, c *console) error {
	change, err := p.change()
	if err != nil {
		return err
	}
	by, err := whoOr(p.By, "")
	if err != nil {
		return err
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		partner, changed, err := topup.ChangePartner(ctx, d.pool, p.Partner, change, by, time.Now())
		if err != nil {
			return err
		}
		if p.JSON {
			return printJSON(c.out, partner)
		}
		if len(changed) == 0 {
			_, err = fmt.Fprintf(c.out, "partner %s is so already\n", partner.Name)
		} else {
			_, err = fmt.Fprintf(c.out, "partner %s: changed %s\n", partner.Name, strings.Join(changed, ", "))
		}
		return err
	})
}

// change reads the flags.
func (p *partnerSetCommand) change() (change topup.PartnerChange, err error) {
	change = topup.PartnerChange{
		PaymentCodes: p.Payees, Login: p.User, Show: (*topup.Show)(p.Show), Codes: p.Codes, MayCancel: p.MayCancel, TimeZone: p.TimeZone,
	}
	// A variable of a script that is not set must neither open a door nor reset anything.
	for flag, empty := range map[string]bool{
		"user": p.User != nil && *p.User == "", "show": p.Show != nil && *p.Show == "", "time-zone": p.TimeZone != nil && *p.TimeZone == "",
		"payees": p.Payees != nil && len(p.Payees) == 0, "allow": p.Allow != nil && len(p.Allow) == 0, "codes": p.Codes != nil && len(p.Codes) == 0,
	} {
		if empty {
			return change, usageError{fmt.Errorf("--%s: is empty", flag)}
		}
	}
	if change.Allow, err = networks("--allow", p.Allow); err != nil {
		return change, usageError{err}
	}
	for _, sum := range []struct {
		flag string
		text *string
		into **money.Amount
	}{{"min", p.Min, &change.Min}, {"max", p.Max, &change.Max}} {
		if sum.text == nil {
			continue
		}
		amount, err := roubles(sum.flag, *sum.text)
		if err != nil {
			return change, err
		}
		*sum.into = &amount
	}
	for _, secret := range []struct {
		file string
		into **string
	}{{p.PasswordFile, &change.Password}, {p.SecretFile, &change.Secret}} {
		if secret.file == "" {
			continue
		}
		text, err := secretOf(secret.file)
		if err != nil {
			return change, err
		}
		*secret.into = &text
	}
	if p.LayoutFile != "" {
		if change.Layout, err = readLayout(p.LayoutFile); err != nil {
			return change, fmt.Errorf("--layout-file: %w", err)
		}
	}
	for _, what := range p.Without {
		given := false
		switch what {
		case "user":
			given, change.Login = p.User != nil || p.PasswordFile != "", new(string)
		case "secret":
			given, change.Secret = p.SecretFile != "", new(string)
		case "codes":
			given, change.Codes = p.Codes != nil, map[topup.Outcome]int{}
		case "layout":
			given, change.OwnFormat = p.LayoutFile != "", true
		}
		if given {
			return change, usageError{fmt.Errorf("--without %s: it is given as well", what)}
		}
	}
	if reflect.ValueOf(change).IsZero() {
		return change, usageError{errors.New("say what to change")}
	}
	return change, nil
}

// whichPartner is the partner of a command that disables or enables it.
type whichPartner struct {
	Partner string `arg:"" name:"name" help:"Which partner (zvonok partner list)."`
	By      string `help:"Who does it; it is kept. Default: the user of the system." placeholder:"NAME"`
	JSON    bool   `name:"json" help:"Print JSON."`
}

type partnerDisableCommand struct{ whichPartner }

func (p *partnerDisableCommand) Run(ctx context.Context, c *console) error {
	return p.disable(ctx, c, true)
}

type partnerEnableCommand struct{ whichPartner }

func (p *partnerEnableCommand) Run(ctx context.Context, c *console) error {
	return p.disable(ctx, c, false)
}

func (p *whichPartner) disable(ctx context.Context, c *console, disabled bool) error {
	who, err := whoOr(p.By, "")
	if err != nil {
		return err
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		partner, err := topup.DisablePartner(ctx, d.pool, p.Partner, disabled, who, time.Now())
		if err != nil {
			return err
		}
		if p.JSON {
			return printJSON(c.out, partner)
		}
		_, err = fmt.Fprintf(c.out, "partner %s is %s\n", partner.Name, partnerState(partner))
		return err
	})
}

func partnerState(p topup.Partner) string {
	if p.Disabled {
		return "disabled"
	}
	return "enabled"
}

type partnerLogCommand struct {
	Partner string `arg:"" name:"name" help:"Whose changes they are (zvonok partner list)."`
	JSON    bool   `name:"json" help:"Print JSON."`
}

func (p *partnerLogCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		changes, err := topup.ChangesOfPartner(ctx, d.pool, p.Partner)
		if err != nil {
			return err
		}
		if p.JSON {
			return printJSON(c.out, changes)
		}
		rows := make([][]any, len(changes))
		for i, done := range changes {
			rows[i] = []any{done.At.Local().Format(moment), done.Action, strings.Join(done.Settings, ","), done.By}
		}
		return table(c.out, []any{"AT", "WAS", "SETTINGS", "BY"}, rows)
	})
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
				partnerState(partner),
			})
		}
		return table(c.out, []any{"NAME", "DIALECT", "PAYEES", "SHOWS", "MIN", "MAX", "STATE"}, rows)
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
