package routing

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"zvonok/access/phone"
)

// Limits of a file.
const (
	mostProblems  = 100     // lines told; the others are counted
	progressEvery = 500_000 // lines between two words about them
	mostForeign   = 1000    // words for foreign owners told; the others are counted together
)

// otherOwners are counted together in [Summary.Foreign].
const otherOwners = "(others)"

// File is a file of ported numbers to be imported: CSV in UTF-8 with a header
// line, separated by commas or semicolons. It needs a column with the number
// ("number", "phone", "msisdn" or "subscriber") and one with its owner
// ("operator", "owner", "ownerid" or "recipient"); others are ignored. This is
// also the form in which national databases of ported numbers publish theirs.
type File struct {
	Name  string
	Lines io.Reader

	// Operators are those of the settings. Owners says which of them is meant by
	// a word in the column of the owner; an operator's own name needs no entry.
	Operators []string
	Owners    map[string]string

	// Changes says that the file has only what changed since the last: its
	// numbers are added or replaced, and one without an owner has come home.
	// Otherwise the file is the whole table.
	Changes bool

	// Progress hears now and then what is being done; it may be nil.
	Progress func(what string)
}

// Problem is a line that cannot be understood.
type Problem struct {
	Line   int    `json:"line"`
	Reason string `json:"reason"`
}

// Summary says what an import did.
type Summary struct {
	Lines    int            `json:"lines"`
	Numbers  int            `json:"numbers"` // of ours, in the file
	Added    int            `json:"added"`
	Changed  int            `json:"changed"`  // have another operator now
	Removed  int            `json:"removed"`  // are in the table no more
	Total    int            `json:"total"`    // in the table now
	Foreign  map[string]int `json:"foreign"`  // lines of owners we have no link to, left out
	Problems []Problem      `json:"problems"` // then nothing was changed
	Wrong    int            `json:"wrong"`    // lines with a problem, also those not told
}

// ErrProblems says that lines of the file cannot be understood and nothing was
// changed.
var ErrProblems = errors.New("the file has lines that cannot be understood; nothing was changed")

// Import brings a file into the table, all or nothing: whoever reads the table
// meanwhile sees it as it was. Only what differs is written. The memory it takes
// does not depend on the length of the file; imports take turns.
func Import(ctx context.Context, pool *pgxpool.Pool, f File, now time.Time) (Summary, error) {
	s := Summary{Foreign: map[string]int{}}
	if f.Progress == nil {
		f.Progress = func(string) {}
	}
	source, err := f.open()
	if err != nil {
		return s, err
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		// Tens of millions of lines take longer than any other statement may, and
		// are sorted in few passes.
		if _, err := tx.Exec(ctx, `
			SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; SET LOCAL work_mem = '128MB';
			CREATE TEMPORARY TABLE incoming (line bigint, number bigint, operator text) ON COMMIT DROP;
			SELECT pg_advisory_xact_lock(hashtextextended('zvonok ported numbers', 0))`); err != nil {
			return fmt.Errorf("import ported numbers: %w", err)
		}
		rows := &rowSource{file: source, summary: &s}
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"incoming"}, []string{"line", "number", "operator"}, rows); err != nil {
			return fmt.Errorf("import ported numbers: %w", err)
		}
		if s.Wrong > 0 {
			return ErrProblems
		}
		return f.merge(ctx, tx, now, &s)
	})
	return s, err
}

// merge makes the table of what was read; of a number that comes twice the last
// line counts. What has no operator of ours is left to its prefix.
func (f File) merge(ctx context.Context, tx pgx.Tx, now time.Time, s *Summary) error {
	f.Progress("sorting the numbers")
	if _, err := tx.Exec(ctx, `
		CREATE TEMPORARY TABLE latest ON COMMIT DROP AS
			SELECT DISTINCT ON (number) number, operator FROM incoming ORDER BY number, line DESC;
		ANALYZE latest`); err != nil {
		return fmt.Errorf("import ported numbers: %w", err)
	}
	f.Progress("comparing them with the table")
	gone := `EXISTS (SELECT FROM latest AS l WHERE l.number = p.number AND l.operator = '')` // home again, or with a foreign one
	if !f.Changes {
		gone = `NOT EXISTS (SELECT FROM latest AS l WHERE l.number = p.number AND l.operator <> '')`
	}
	for _, step := range []struct {
		count *int
		sql   string
	}{
		{&s.Removed, `DELETE FROM routing.ported AS p WHERE ` + gone},
		{&s.Changed, `
			UPDATE routing.ported AS p SET operator = l.operator FROM latest AS l
			WHERE l.number = p.number AND l.operator NOT IN ('', p.operator)`},
		{&s.Added, `
			INSERT INTO routing.ported (number, operator) SELECT l.number, l.operator FROM latest AS l
			WHERE l.operator <> '' AND NOT EXISTS (SELECT FROM routing.ported AS p WHERE p.number = l.number)
			ORDER BY l.number`},
	} {
		tag, err := tx.Exec(ctx, step.sql)
		if err != nil {
			return fmt.Errorf("import ported numbers: %w", err)
		}
		*step.count = int(tag.RowsAffected())
	}
	err := tx.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM latest WHERE operator <> ''), (SELECT count(*) FROM routing.ported)`).Scan(&s.Numbers, &s.Total)
	if err != nil {
		return fmt.Errorf("import ported numbers: %w", err)
	}
	if _, err := tx.Exec(ctx, `INSERT INTO routing.import (at, file, numbers) VALUES ($1, $2, $3)`,
		now, f.Name, s.Total); err != nil {
		return fmt.Errorf("import ported numbers: %w", err)
	}
	f.Progress(fmt.Sprintf("%d added, %d changed, %d removed", s.Added, s.Changed, s.Removed))
	return nil
}

// openFile is a file whose header was read.
type openFile struct {
	File
	reader        *csv.Reader
	number, owner int
}

// open reads the header. The error names the columns that are missing.
func (f File) open() (*openFile, error) {
	head := make([]byte, 0, 4096)
	one := make([]byte, 1)
	for len(head) < cap(head) && (len(head) == 0 || head[len(head)-1] != '\n') {
		n, err := f.Lines.Read(one)
		head = append(head, one[:n]...)
		if err != nil {
			break
		}
	}
	first := strings.TrimPrefix(strings.TrimRight(string(head), "\r\n"), "\uFEFF")
	comma := ','
	if strings.Contains(first, ";") {
		comma = ';'
	}
	columns := strings.Split(strings.ToLower(first), string(comma))
	for i := range columns {
		columns[i] = strings.Trim(strings.TrimSpace(columns[i]), `"`)
	}
	find := func(names ...string) int {
		return slices.IndexFunc(columns, func(c string) bool { return slices.Contains(names, c) })
	}
	o := &openFile{
		File: f, reader: csv.NewReader(f.Lines),
		number: find("number", "phone", "msisdn", "subscriber"), owner: find("operator", "owner", "ownerid", "recipient"),
	}
	o.reader.Comma, o.reader.FieldsPerRecord, o.reader.ReuseRecord, o.reader.LazyQuotes = comma, -1, true, true
	if o.number < 0 || o.owner < 0 {
		return nil, fmt.Errorf("%s: line 1: the header must name a column number and a column operator, it has %q", f.Name, columns)
	}
	return o, nil
}

// rowSource reads the lines into the database.
type rowSource struct {
	file    *openFile
	summary *Summary
	values  [3]any
	err     error
}

// Next reads up to the next line that has something for the table.
func (r *rowSource) Next() bool {
	for {
		record, err := r.file.reader.Read()
		if err == io.EOF {
			return false
		}
		r.summary.Lines++
		if r.summary.Lines%progressEvery == 0 {
			r.file.Progress(fmt.Sprintf("%d lines read", r.summary.Lines))
		}
		line := r.summary.Lines + 1 // the header is the first
		var parse *csv.ParseError
		if errors.As(err, &parse) {
			r.wrong(line, parse.Err.Error())
			continue
		}
		if err != nil {
			r.err = fmt.Errorf("read %s: %w", r.file.Name, err)
			return false
		}
		number, operator, why := r.file.understand(record)
		if why != "" {
			r.wrong(line, why)
			continue
		}
		if operator == "" {
			// An owner we have no link to, or a number at home: its prefix decides,
			// whatever an earlier line says.
			r.foreign(record)
		}
		r.values = [3]any{int64(line), number, operator}
		return true
	}
}

func (r *rowSource) foreign(record []string) {
	owner := strings.TrimSpace(record[r.file.owner])
	if _, known := r.summary.Foreign[owner]; !known && len(r.summary.Foreign) >= mostForeign {
		owner = otherOwners
	}
	if owner != "" {
		r.summary.Foreign[strings.Clone(owner)]++
	}
}

func (r *rowSource) wrong(line int, reason string) {
	r.summary.Wrong++
	if len(r.summary.Problems) < mostProblems {
		r.summary.Problems = append(r.summary.Problems, Problem{line, reason})
	}
}

// understand reads one line. operator is empty for an owner that is none of
// ours; why says what is wrong, without the number, which is a person's.
func (f *openFile) understand(record []string) (number int64, operator, why string) {
	if len(record) <= max(f.number, f.owner) {
		return 0, "", fmt.Sprintf("%d columns, the header has more", len(record))
	}
	parsed, err := phone.Parse(record[f.number], "RU")
	if err != nil {
		return 0, "", "the number is no phone number"
	}
	if number, err = strconv.ParseInt(string(parsed), 10, 64); err != nil {
		return 0, "", "the number is no phone number"
	}
	owner := strings.TrimSpace(record[f.owner])
	switch {
	case owner == "" && !f.Changes:
		return 0, "", "the operator is missing"
	case owner == "":
		return number, "", ""
	}
	if operator, ok := f.Owners[owner]; ok {
		return number, operator, ""
	}
	if slices.Contains(f.Operators, owner) {
		return number, strings.Clone(owner), ""
	}
	return number, "", ""
}

func (r *rowSource) Values() ([]any, error) { return r.values[:], nil }
func (r *rowSource) Err() error             { return r.err }
