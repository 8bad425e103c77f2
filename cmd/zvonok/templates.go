package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"zvonok/ledger/money"
	"zvonok/ledger/pg"
	"zvonok/templates"
)

type templatesCommand struct {
	Operator bool   `help:"Print the form in which operators register texts."`
	Language string `enum:"ru,en," default:"" help:"With --operator: in this language alone (ru, en)." placeholder:"LANGUAGE"`
	Lint     bool   `help:"Measure every text with the names in the database: worst case, parts, and what they cost."`
	JSON     bool   `name:"json" help:"Print JSON."`
}

// texts are the texts of the settings.
func (c *Config) texts() (*templates.Live, error) {
	live, err := templates.Watch(c.Notice.TemplatesFile)
	if err != nil {
		return nil, fmt.Errorf("notice.templates_file: %w", err)
	}
	return live, nil
}

const textsInterval = 10 * time.Second // how long a changed file may go unnoticed

// watchTexts reads a deployment's texts again when their file has changed, and
// on a hangup whether it has or not.
func watchTexts(
	ctx context.Context, live *templates.Live, hangup <-chan os.Signal, log *slog.Logger, registry prometheus.Registerer,
) {
	broken := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "zvonok_templates_override_broken",
		Help: "1 while notice.templates_file is broken and the texts before it are used.",
	})
	registry.MustRegister(broken)
	ticker := time.NewTicker(textsInterval)
	defer ticker.Stop()
	said := ""
	for {
		told := false
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			told = true
		case <-ticker.C:
		}
		changed, err := live.Reload(told)
		switch {
		case err == nil:
			broken.Set(0)
			said = ""
			if changed {
				log.Info("the texts of notice.templates_file are in use")
			}
		case told || err.Error() != said:
			broken.Set(1)
			said = err.Error()
			log.Error("notice.templates_file is broken; the texts before it stay in use", "error", err)
		}
	}
}

func (t *templatesCommand) Run(ctx context.Context, c *console) error {
	config, err := c.settings()
	if err != nil {
		return err
	}
	live, err := config.texts()
	if err != nil {
		return err
	}
	texts := live.Texts()
	switch {
	case t.Operator:
		return t.operatorForm(c, texts)
	case t.Lint:
		return c.withDatabase(ctx, func(ctx context.Context, d *database) error { return t.lint(ctx, c, d, config, texts) })
	}
	list := texts.Catalogue()
	if t.JSON {
		return printJSON(c.out, list)
	}
	rows := make([][]any, 0, len(list))
	for _, entry := range list {
		where := "SMS"
		if entry.USSD {
			where = "USSD"
		}
		rows = append(rows, []any{entry.Key, where, strings.Join(entry.Variables, " ")})
	}
	return table(c.out, []any{"TEXT", "WHERE", "VARIABLES"}, rows)
}

func (t *templatesCommand) operatorForm(c *console, texts *templates.Texts) error {
	type entry struct {
		Language templates.Language
		templates.OperatorTemplate
	}
	var form []entry
	for _, language := range templates.Languages() {
		if t.Language != "" && language != templates.Language(t.Language) {
			continue
		}
		for _, text := range texts.OperatorForm(language) {
			form = append(form, entry{language, text})
		}
	}
	if t.JSON {
		return printJSON(c.out, form)
	}
	rows := make([][]any, 0, len(form))
	for _, e := range form {
		rows = append(rows, []any{e.Language, e.Key, e.Text})
	}
	return table(c.out, []any{"LANGUAGE", "TEXT", "AS REGISTERED"}, rows)
}

// lint measures the texts with the names of all children.
func (t *templatesCommand) lint(ctx context.Context, c *console, d *database, config Config, texts *templates.Texts) error {
	rows, err := d.pool.Query(ctx, `
		SELECT DISTINCT given_name, left(family_name, 1) FROM ledger.person WHERE kind = 'pupil' AND left_on IS NULL`)
	if err != nil {
		return fmt.Errorf("read the names: %w", err)
	}
	names, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (templates.Name, error) {
		var n templates.Name
		err := row.Scan(&n.Given, &n.Family)
		return n, err
	})
	if err != nil {
		return fmt.Errorf("read the names: %w", err)
	}
	var dearest money.Amount
	for _, o := range config.Operators {
		if cost, err := money.Parse(o.Cost); err == nil {
			dearest = max(dearest, cost)
		}
	}
	findings := texts.Lint(names)
	costly, err := costlyChildren(ctx, d.pool, findings)
	if err != nil {
		return err
	}
	if t.JSON {
		list := make([]lintedText, len(findings))
		for i, f := range findings {
			list[i] = lintedText{f, f.Price(dearest).String(), costly[i]}
		}
		return printJSON(c.out, list)
	}
	lines := make([][]any, 0, len(findings))
	for _, f := range findings {
		style := string(f.Language)
		if f.Latin {
			style += " latin"
		}
		lines = append(lines, []any{f.Key, style, f.Length, f.Parts, f.Price(dearest), f.Costly, f.Shortened})
	}
	if err := table(c.out, []any{"TEXT", "LANGUAGE", "LENGTH", "PARTS", "PRICE", "COSTLY NAMES", "SHORTENED"}, lines); err != nil {
		return err
	}
	for i, f := range findings {
		if len(costly[i]) > 0 {
			if _, err := fmt.Fprintf(c.out, "%s (%s) costs a second part for: %s\n", f.Key, f.Language, strings.Join(costly[i], " ")); err != nil {
				return err
			}
		}
	}
	return nil
}

// lintedText is a finding with what it costs and whom it concerns.
type lintedText struct {
	templates.Finding
	Price    string   `json:"Price"`    // of the longest text, by the dearest operator
	Children []string `json:"Children"` // by the registry's id, for whom it costs a second part; the first of them
}

// costlyChildren finds the children of whose names each finding complains, by
// the registry's id.
func costlyChildren(ctx context.Context, q pg.Querier, findings []templates.Finding) ([][]string, error) {
	list := make([][]string, len(findings))
	for i, f := range findings {
		list[i] = []string{}
		if len(f.Names) == 0 {
			continue
		}
		given, initials := make([]string, len(f.Names)), make([]string, len(f.Names))
		for n, name := range f.Names {
			given[n], initials[n] = name.Given, name.Family
		}
		rows, err := q.Query(ctx, `
			SELECT DISTINCT p.code FROM unnest($1::text[], $2::text[]) AS n (given_name, initial)
			JOIN ledger.person AS p ON p.given_name = n.given_name AND left(p.family_name, 1) = n.initial
			WHERE p.kind = 'pupil' AND p.left_on IS NULL ORDER BY p.code LIMIT 1000`, given, initials)
		if err != nil {
			return nil, fmt.Errorf("find whose names are costly: %w", err)
		}
		if list[i], err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			return nil, fmt.Errorf("find whose names are costly: %w", err)
		}
	}
	return list, nil
}
