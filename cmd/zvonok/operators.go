package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"zvonok/access/phone"
	"zvonok/gateway/carrier"
	"zvonok/gateway/delivery"
	"zvonok/gateway/routing"
)

const (
	watchInterval = time.Second      // between two looks of the live table
	askTimeout    = 5 * time.Second  // of the running gateway's answer
	checkTimeout  = 10 * time.Minute // of a certification, receipts and a throttled burst included
)

// operatorLine is one operator of the live view, in base units.
type operatorLine struct {
	Operator       string     `json:"operator"`
	Mode           string     `json:"mode"`
	BindsUp        int        `json:"binds_up"`
	Binds          int        `json:"binds"`
	BindsElsewhere int        `json:"binds_elsewhere"` // that other processes on the database may have
	WindowUsed     int        `json:"window_used"`
	Window         int        `json:"window"`
	Rate           float64    `json:"rate"` // parts per second allowed now
	RateConfigured float64    `json:"rate_configured"`
	Throughput     float64    `json:"throughput"` // parts accepted in the last second
	Queue          int        `json:"queue"`
	OldestSeconds  float64    `json:"oldest_seconds"`
	RoundTrip      float64    `json:"round_trip_seconds"`
	LimitedBy      string     `json:"limited_by"`
	Explanation    string     `json:"explanation"`
	Clears         *time.Time `json:"clears,omitzero"`
	LastBindFail   string     `json:"last_bind_failure,omitzero"`
}

// operatorLines joins what the links know with what waits in the database.
func operatorLines(all []carrier.Status, backlogs []delivery.Backlog, now time.Time) []operatorLine {
	lines := make([]operatorLine, 0, len(all))
	for i, s := range all {
		if i < len(backlogs) && backlogs[i].Messages > 0 {
			s = s.Waiting(backlogs[i].Messages, now.Sub(backlogs[i].Since), now)
		}
		line := operatorLine{
			Operator: s.Operator, Mode: string(s.Mode), BindsUp: s.BindsUp, Binds: s.Binds, WindowUsed: s.WindowUsed,
			BindsElsewhere: s.BindsElsewhere, Window: s.Window, Rate: s.Rate, RateConfigured: s.RateConfigured, Throughput: s.Throughput, Queue: s.Queue,
			OldestSeconds: s.Oldest.Seconds(), RoundTrip: s.RoundTrip.Seconds(), LimitedBy: string(s.LimitedBy),
			Explanation: s.Explanation, LastBindFail: s.LastBindFailure,
		}
		if !s.Clears.IsZero() {
			line.Clears = &s.Clears
		}
		lines = append(lines, line)
	}
	return lines
}

type operatorsCommand struct {
	JSON  bool `name:"json" help:"Print JSON, once."`
	Watch bool `help:"Print again every second until Ctrl-C."`
}

func (o *operatorsCommand) Run(ctx context.Context, c *console) error {
	config, err := c.settings()
	if err != nil {
		return err
	}
	for {
		lines, err := askOperators(ctx, config.Admin.Listen)
		if err != nil {
			return err
		}
		if o.JSON {
			return printJSON(c.out, lines)
		}
		if o.Watch {
			fmt.Fprint(c.out, "\x1b[H\x1b[2J") // from the top of an empty screen
		}
		if err := printOperators(c.out, lines); err != nil {
			return err
		}
		if !o.Watch {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchInterval):
		}
	}
}

// askOperators asks the running gateway, which alone knows its links.
func askOperators(ctx context.Context, admin string) ([]operatorLine, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/operators", nil)
	if err != nil {
		return nil, fmt.Errorf("ask the gateway: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("no gateway answers at admin.listen = %q; is zvonok serve running with these settings? (%w)", admin, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the gateway: it answered %s", response.Status)
	}
	var lines []operatorLine
	if err := json.NewDecoder(response.Body).Decode(&lines); err != nil {
		return nil, fmt.Errorf("ask the gateway: %w", err)
	}
	return lines, nil
}

func printOperators(w io.Writer, lines []operatorLine) error {
	rows := make([][]any, 0, len(lines))
	for _, l := range lines {
		binds := fmt.Sprintf("%d/%d", l.BindsUp, l.Binds)
		if l.BindsElsewhere > 0 {
			binds += fmt.Sprintf(" (%d elsewhere)", l.BindsElsewhere)
		}
		rows = append(rows, []any{
			l.Operator, binds, fmt.Sprintf("%d/%d", l.WindowUsed, l.Window),
			fmt.Sprintf("%.0f/%.0f", l.Throughput, l.Rate), l.Queue,
			time.Duration(l.OldestSeconds * float64(time.Second)).Round(100 * time.Millisecond), l.Explanation,
		})
	}
	return table(w, []any{"OPERATOR", "BINDS", "WINDOW", "PARTS/S", "QUEUE", "OLDEST", "LIMITED BY"}, rows)
}

type operatorCommands struct {
	Ported operatorPortedCommand `cmd:"" help:"Import the table of numbers that moved from one operator to another, so that they are sent by the right one."`
	Replay operatorReplayCommand `cmd:"" help:"Put what failed for an operator, or what nobody works on, to its route again: each message once, none that may have arrived."`
	Check  operatorCheckCommand  `cmd:"" help:"Certify one operator's link: bind, each encoding, long text, receipt, USSD, throttle; prints a report."`
}

type operatorCheckCommand struct {
	Name        string        `arg:"" help:"The operator's name in the settings."`
	To          string        `required:"" help:"A test phone of that operator, as in +79000000001. It gets about twenty SMS."`
	ReceiptWait time.Duration `default:"2m" help:"How long receipts may take." placeholder:"TIME"`
	DialWait    time.Duration `default:"90s" help:"How long to wait for somebody to dial on the test phone." placeholder:"TIME"`
	NoDial      bool          `help:"Nobody dials: leave USSD out."`
	JSON        bool          `name:"json" help:"Print JSON."`
}

func (o *operatorCheckCommand) Run(ctx context.Context, c *console) error {
	config, err := c.settings()
	if err != nil {
		return err
	}
	to, err := phone.Parse(o.To, "RU")
	if err != nil {
		return usageError{fmt.Errorf("--to: %w", err)}
	}
	operators, err := operatorConfigs(config.Operators)
	if err != nil {
		return err
	}
	for _, operator := range operators {
		if operator.Name != o.Name {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, checkTimeout+o.ReceiptWait+o.DialWait)
		defer cancel()
		run := carrier.Certification{Operator: operator, To: to, ReceiptWait: o.ReceiptWait, DialWait: o.DialWait}
		if o.NoDial {
			run.DialWait = -1
		}
		run.Announce = func(what string) { fmt.Fprintln(c.err, what) }
		run.Progress = func(s carrier.Step) { fmt.Fprintln(c.err, s) }
		report, err := run.Run(ctx)
		if err != nil {
			return err
		}
		if o.JSON {
			err = printJSON(c.out, report)
		} else {
			_, err = fmt.Fprint(c.out, report.Text())
		}
		if err == nil && !report.Passed() {
			return printedError{errors.New("the certification failed")}
		}
		return err
	}
	return fmt.Errorf("the settings have no operator %q", o.Name)
}

type operatorPortedCommand struct {
	File    string            `arg:"" type:"existingfile" help:"CSV in UTF-8 with a header line that names the columns number and operator (or those of a national database: Number, OwnerId)."`
	Owner   map[string]string `help:"Which operator of the settings the file means by a word: --owner mTELE2=tele2. Repeat it for each." placeholder:"WORD=OPERATOR" mapsep:"none"`
	Changes bool              `help:"The file has only what changed: its numbers are added or replaced, one without an operator has come home. Otherwise it is the whole table."`
	JSON    bool              `name:"json" help:"Print JSON."`
}

func (o *operatorPortedCommand) Run(ctx context.Context, c *console) error {
	config, err := c.settings()
	if err != nil {
		return err
	}
	var names []string
	for _, operator := range config.Operators {
		names = append(names, operator.Name)
	}
	for word, name := range o.Owner {
		if !slices.Contains(names, name) {
			return usageError{fmt.Errorf("--owner %s=%s: the settings have no operator %q; they have %s",
				word, name, name, strings.Join(names, ", "))}
		}
	}
	file, err := os.Open(o.File)
	if err != nil {
		return fmt.Errorf("open the file: %w", err)
	}
	defer file.Close()
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		summary, err := routing.Import(ctx, d.pool, routing.File{
			Name: filepath.Base(o.File), Lines: bufio.NewReaderSize(file, 1<<20), Operators: names, Owners: o.Owner,
			Changes:  o.Changes,
			Progress: func(what string) { fmt.Fprintln(c.err, what) },
		}, time.Now())
		if err != nil && !errors.Is(err, routing.ErrProblems) {
			return err
		}
		if o.JSON {
			if printed := printJSON(c.out, summary); printed != nil {
				return printed
			}
		} else if err == nil {
			if printed := printPorted(c.out, summary); printed != nil {
				return printed
			}
		}
		if err == nil {
			return nil
		}
		if !o.JSON {
			for _, p := range summary.Problems {
				fmt.Fprintf(c.err, "%s:%d: %s\n", o.File, p.Line, p.Reason)
			}
			if more := summary.Wrong - len(summary.Problems); more > 0 {
				fmt.Fprintf(c.err, "and %d more\n", more)
			}
			fmt.Fprintf(c.err, "zvonok: %s; correct these lines and import again\n", err)
		}
		return printedError{err}
	})
}

func printPorted(w io.Writer, s routing.Summary) error {
	if err := table(w, []any{"LINES", "OF OUR OPERATORS", "ADDED", "CHANGED", "REMOVED", "IN THE TABLE NOW"},
		[][]any{{s.Lines, s.Numbers, s.Added, s.Changed, s.Removed, s.Total}}); err != nil {
		return err
	}
	if len(s.Foreign) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\nLeft out, because no operator of the settings is meant by these words (name them with --owner):")
	var rows [][]any
	for _, word := range slices.Sorted(maps.Keys(s.Foreign)) {
		rows = append(rows, []any{word, s.Foreign[word]})
	}
	return table(w, []any{"OWNER", "NUMBERS"}, rows)
}
