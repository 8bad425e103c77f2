// Package registry reads a registry folder: the CSV files by which a city gives
// its organisations, people, cards, representatives, subscriptions and menus.
//
// A file is UTF-8 text (a byte order mark is tolerated) with a header line,
// comma separated, quoted as RFC 4180 says. Columns stand in any order; each
// declared column must be there and no other may. A record is one line: since
// no field of a registry may hold a line break, a quote left open spoils its
// own line and not the rest of the file. Spaces round a field are dropped,
// control characters are refused.
//
// Reading streams and never stops at a bad line. Every bad line becomes a
// Problem of the Report, naming file, line and reason; the first thousand are
// kept and all are counted. What the lines mean is not known here: each package
// that owns tables declares its files as a Table and offers one Import.
//
// # How an import works
//
// All files of a folder are imported in one transaction, all or nothing. The
// command opens the folder, begins the transaction and calls the Import of each
// owner in the order of their dependence (register, then access, then
// subscription and meal), all with the same Report. At the end it commits if
// Report.Err is nil and rolls back otherwise, and prints the Report either way.
//
// The usual Import reads a Table into a temporary table by COPY, together with
// the line numbers; finds what only the database can find (an unknown id, an id
// given twice) with Check, which turns each row of a query into a Problem; and,
// while the Report has no problem, merges with set-based statements and adds
// the numbers of added, changed and left rows to the Report.
//
// The rows of a bad file are not merged, so what refers to them would be called
// unknown. An Import therefore looks for unknown ids only if the Report was OK
// when it was called; the person who imports sees all the causes and none of
// their consequences.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/pg"
)

// Names of the files of a folder, in the order in which they depend on each other.
const (
	Payees        = "payees.csv"
	Organisations = "organisations.csv"
	Buildings     = "buildings.csv"
	People        = "people.csv"
	Cards         = "cards.csv"
	Guardians     = "guardians.csv"
	Subscriptions = "subscriptions.csv"
	Menu          = "menu.csv"
	// Products are what buffets sell under the codes of their tills: org_id, code,
	// name, category, allergens.
	Products = "products.csv"
	// Offices are the places of banks where accounts are topped up: point, name,
	// address, phone, metro, hours, break, weekend.
	Offices = "offices.csv"
)

// FileNames lists the files a folder may hold.
func FileNames() []string {
	return []string{Payees, Organisations, Buildings, People, Cards, Guardians, Subscriptions, Menu, Products, Offices}
}

const (
	// maxProblems is how many problems a Report keeps: more than a person reads
	// at once, few enough for a terminal. All are counted.
	maxProblems = 1000
	// maxLine is the longest line in bytes; the longest honest one has under 2,000.
	maxLine = 64 << 10
	// maxField is the longest field in characters.
	maxField = 1000
)

// Import brings the files of one owner into its tables.
//
// It works in the caller's transaction and never commits, so that a folder is
// imported all or nothing. Bad lines are problems added to report, not errors:
// an Import goes on to find as many as it can, but changes nothing more in its
// tables once the report has any, because the caller is going to roll back. A
// file that is absent from folder changes nothing. Rows are matched by id and
// updated; no row is deleted because it is absent.
//
// The error is that of the database or of reading a file; it also ends the
// import.
type Import func(ctx context.Context, tx pgx.Tx, folder *Folder, report *Report) error

// Folder is a registry folder.
type Folder struct {
	files fs.FS
}

// Open opens the folder dir of the file system.
func Open(dir string) (*Folder, error) {
	folder, err := OpenFS(os.DirFS(dir))
	if err != nil {
		return nil, fmt.Errorf("open the registry folder %s: %w", dir, err)
	}
	return folder, nil
}

// OpenFS opens a folder that need not be on a disk, such as one whose files are
// made while they are read. It checks that there is at least one registry file
// and no CSV file of another name, since that would most likely be a misspelt
// one, silently left out.
func OpenFS(files fs.FS) (*Folder, error) {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil, fmt.Errorf("list its files: %w", err)
	}
	known := 0
	for _, entry := range entries {
		switch name := entry.Name(); {
		case slices.Contains(FileNames(), name):
			known++
		case strings.EqualFold(path.Ext(name), ".csv"):
			return nil, fmt.Errorf("%s is not a registry file: the names are %s", name, strings.Join(FileNames(), ", "))
		}
	}
	if known == 0 {
		return nil, fmt.Errorf("it holds no registry file: the names are %s", strings.Join(FileNames(), ", "))
	}
	return &Folder{files: files}, nil
}

// Has tells whether the folder holds the file.
func (f *Folder) Has(name string) bool {
	_, err := fs.Stat(f.files, name)
	return err == nil
}

// Problem is one reason why a folder cannot be imported.
type Problem struct {
	File string `json:"file"`
	// Line counts from 1, the header; it is 0 when the file as a whole is meant.
	Line   int    `json:"line,omitzero"`
	Reason string `json:"reason"`
}

// String returns the problem as a person reads it: `people.csv line 7: org_id "x" is not known`.
func (p Problem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.Reason
	}
	return fmt.Sprintf("%s line %d: %s", p.File, p.Line, p.Reason)
}

// Count is what an import did with the rows of one file.
type Count struct {
	File string `json:"file"`
	// Added rows were new, Changed rows differed from what was stored, Left rows did not.
	Added   int `json:"added"`
	Changed int `json:"changed"`
	Left    int `json:"left"`
}

// Report is the outcome of an import. Its zero value is ready to use.
type Report struct {
	// Counts has one entry per imported file, in order of import.
	Counts []Count `json:"counts"`
	// Problems are the first thousand that were found.
	Problems []Problem `json:"problems"`
	// Found is the number of all problems.
	Found int `json:"found"`
}

// Add appends a problem with a line. The reason may quote what the line holds,
// so a report goes to the person who imports and not to a log.
func (r *Report) Add(file string, line int, reason string) {
	r.Found++
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, Problem{File: file, Line: line, Reason: reason})
	}
}

// Done appends what was done with a file.
func (r *Report) Done(count Count) { r.Counts = append(r.Counts, count) }

// OK tells whether no problem has been found so far.
func (r *Report) OK() bool { return r.Found == 0 }

// ErrProblems is wrapped by the error of a Report that has problems.
var ErrProblems = errors.New("nothing was imported")

// Err returns nil when no problem was found, else an error that wraps
// ErrProblems, says how many there are and names the first.
func (r *Report) Err() error {
	switch r.Found {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%w: %s", ErrProblems, r.Problems[0])
	}
	return fmt.Errorf("%w: %d problems, the first is %s", ErrProblems, r.Found, r.Problems[0])
}

// Check runs a query that looks for bad lines and adds each row it returns,
// a line number and a reason, to the report as a problem of the file. The query
// orders by line, so that a report is the same every time.
func Check(ctx context.Context, q pg.Querier, report *Report, file, query string, args ...any) error {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("check %s: %w", file, err)
	}
	var line int
	var reason string
	if _, err := pgx.ForEachRow(rows, []any{&line, &reason}, func() error {
		report.Add(file, line, reason)
		return nil
	}); err != nil {
		return fmt.Errorf("check %s: %w", file, err)
	}
	return nil
}
