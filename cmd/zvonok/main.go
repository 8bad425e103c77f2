// Zvonok is a telecom notification gateway for schools: a card at the school's
// door becomes an SMS on the parents' phones, a dialled *377*888# becomes an
// answer. This is its one program; `zvonok --help` lists the commands.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set by the linker (make build).
var version = "unknown"

// Exit codes (contract.md section 2).
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// commands is the command line.
type commands struct {
	Config string `help:"Settings file (TOML). Default: zvonok.toml if it is there." type:"path" placeholder:"FILE"`

	schoolCommands

	Serve       serveCommand        `cmd:"" help:"Run the gateway and all HTTP listeners; several may run on one database."`
	Demo        demoCommand         `cmd:"" help:"Run a demo city: private PostgreSQL, gateway, an operator in a box with a page of phones, a mail catcher."`
	Migrate     migrateCommand      `cmd:"" help:"Bring the database to this version (serve does it too, under a lock)."`
	Import      importCommand       `cmd:"" help:"Import registry files from a folder, all or nothing."`
	Generate    generateCommand     `cmd:"" help:"Make a synthetic city of any size, straight into the database."`
	Key         keyCommands         `cmd:"" help:"Device keys of doors, tills and staff tablets."`
	Application applicationCommands `cmd:"" help:"Applications for informing, as schools key them in."`
	Partner     partnerCommands     `cmd:"" help:"Banks and terminals that take top-ups."`
	Operators   operatorsCommand    `cmd:"" help:"A live table of the mobile operators and what limits each now."`
	Operator    operatorCommands    `cmd:"" help:"Work on one mobile operator: certify it, replay what it failed, import ported numbers."`
	Phone       phoneCommands       `cmd:"" help:"Who holds a representative's phone: show it, confirm it after a change of SIM card or a long silence."`
	Explain     explainCommand      `cmd:"" help:"Everything that happened to one event: recorded, who may know, what was sent, or why nobody was told."`
	Ledger      ledgerCommands      `cmd:"" help:"The books."`
	Report      reportCommands      `cmd:"" help:"Reports for providers and accountants, as a table, CSV, a spreadsheet or JSON."`
	Menu        menuCommands        `cmd:"" help:"Menus of the canteens."`
	Recall      recallCommand       `cmd:"" help:"Stop messages that have not left, and cancel what operators still hold."`
	Templates   templatesCommand    `cmd:"" help:"The texts people read: list, measure, and the form operators register."`
	Dashboards  dashboardsCommand   `cmd:"" help:"Write alert rules for Prometheus and a dashboard for Grafana into a folder."`
	Version     versionCommand      `cmd:"" help:"Print the version."`
}

// console is where a command reads and writes; a test gives its own.
type console struct {
	out, err io.Writer
	environ  []string
	config   string
}

// settings loads the configuration.
func (c *console) settings() (Config, error) { return LoadConfig(c.config, c.environ) }

// logger writes to standard error as the settings say.
func (c *console) logger(config LogConfig) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(config.Level)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if config.Format == "json" {
		return slog.New(slog.NewJSONHandler(c.err, options))
	}
	return slog.New(slog.NewTextHandler(c.err, options))
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr, os.Environ()))
}

// run is main without the process: it returns the exit code.
func run(args []string, stdout, stderr io.Writer, environ []string) (code int) {
	var c commands
	exited := -1
	parser, err := kong.New(&c,
		kong.Name("zvonok"),
		kong.Description("A telecom notification gateway for schools. See the README for the settings."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code; panic(exitEarly{}) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "zvonok:", err)
		return exitFailed
	}
	// kong's --help wants to exit the process; a test must outlive it.
	defer func() {
		if r := recover(); r != nil {
			if _, early := r.(exitEarly); !early {
				panic(r)
			}
			code = exited
		}
	}()
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "zvonok: %s; see zvonok --help\n", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	console := &console{out: stdout, err: stderr, environ: environ, config: c.Config}
	command.BindTo(ctx, (*context.Context)(nil))
	if err := command.Run(console); err != nil {
		var usage usageError
		if errors.As(err, &usage) {
			fmt.Fprintln(stderr, "zvonok:", err)
			return exitUsage
		}
		var printed printedError
		if !errors.As(err, &printed) {
			fmt.Fprintln(stderr, "zvonok:", strings.ReplaceAll(err.Error(), "\n", " "))
		}
		return exitFailed
	}
	return exitDone
}

type exitEarly struct{}

// usageError is a mistake in the command line that the parser cannot see.
type usageError struct{ error }

// printedError is a failure whose words have been printed already.
type printedError struct{ error }

type versionCommand struct{ answering }

func (v versionCommand) Run(c *console) error {
	return v.print(c, map[string]any{"version": version, "go": runtime.Version()}, "zvonok %s", version)
}

// answering is the flag of commands that answer with a line.
type answering struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// print answers with a line, or with a value as JSON.
func (a answering) print(c *console, value map[string]any, format string, args ...any) error {
	if a.JSON {
		return printJSON(c.out, value)
	}
	_, err := fmt.Fprintf(c.out, format+"\n", args...)
	return err
}
