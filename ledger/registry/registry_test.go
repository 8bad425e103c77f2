package registry

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"zvonok/ledger/money"
)

// dish is a row of a small table made for these tests.
type dish struct {
	name, kind string
	price      money.Amount
	until      *time.Time
}

var dishes = Table[dish]{
	File:    Menu,
	Columns: []string{"name", "kind", "price", "until"},
	Parse: func(line *Line) dish {
		row := dish{name: line.Required("name", 200), kind: line.OneOf("kind", "hot", "cold"), until: line.Date("until")}
		if price := line.Amount("price"); price != nil {
			row.price = *price
		}
		return row
	},
}

func write(t *testing.T, name, text string) *Folder {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	folder, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

func readDishes(t *testing.T, text string) (rows []string, report *Report) {
	t.Helper()
	report = &Report{}
	reader, err := dishes.Read(write(t, Menu, text), report)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for reader.Next() {
		row := reader.Row()
		until := "open"
		if row.until != nil {
			until = row.until.Format(time.DateOnly)
		}
		rows = append(rows, fmt.Sprintf("%d %s/%s/%s/%s", reader.Number(), row.name, row.kind, row.price, until))
	}
	if err := reader.Err(); err != nil {
		t.Fatal(err)
	}
	return rows, report
}

func TestAFileIsReadByItsHeader(t *testing.T) {
	t.Parallel()
	const header = "name,kind,price,until\n"
	for _, row := range []struct {
		sentence string
		text     string
		want     []string
	}{
		{"a plain line is a row", header + "Каша,hot,35.00,2026-11-22\n", []string{"2 Каша/hot/35.00/2026-11-22"}},
		{"columns stand in any order", "until,price,name,kind\n,35.00,Каша,hot\n", []string{"2 Каша/hot/35.00/open"}},
		{"a byte order mark is tolerated", "\ufeff" + header + "Каша,hot,35.00,\n", []string{"2 Каша/hot/35.00/open"}},
		{"lines may end as on Windows", "name,kind,price,until\r\nКаша,hot,35.00,\r\n", []string{"2 Каша/hot/35.00/open"}},
		{"the last line needs no end", header + "Каша,hot,35.00,", []string{"2 Каша/hot/35.00/open"}},
		{"empty lines are passed over and counted", header + "\n\nКаша,hot,35.00,\n", []string{"4 Каша/hot/35.00/open"}},
		{
			"a quoted field may hold commas and quotes", header + `"Каша ""Дружба"", с маслом",hot,35.00,` + "\n",
			[]string{`2 Каша "Дружба", с маслом/hot/35.00/open`},
		},
		{"a quoted field may be empty", header + `Каша,"hot","",""` + "\n", []string{"2 Каша/hot/0.00/open"}},
		{
			"spaces round a field are dropped", " name , kind,price ,until\n  Каша , hot , 35.00 , \n",
			[]string{"2 Каша/hot/35.00/open"},
		},
		{"roubles may be given without kopecks", header + "Каша,hot,35,\n", []string{"2 Каша/hot/35.00/open"}},
		{"a header alone is a file without rows", header, nil},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			t.Parallel()
			rows, report := readDishes(t, row.text)
			if !report.OK() {
				t.Fatalf("there are problems: %v", report.Problems)
			}
			if !slices.Equal(rows, row.want) {
				t.Fatalf("the rows are %q; want %q", rows, row.want)
			}
		})
	}
}

func TestEveryBadLineIsNamedWithItsReason(t *testing.T) {
	t.Parallel()
	const header = "name,kind,price,until\n"
	const good = "Суп,hot,50.00,\n"
	for _, row := range []struct {
		sentence string
		text     string
		want     []string
		rows     int
	}{
		{
			"an unknown column is named", "name,kind,price,until,colour\n" + good,
			[]string{`menu.csv line 1: column "colour" is not known; the columns are name, kind, price, until`},
			0,
		},
		{"a missing column is named", "name,kind,until\n" + good, []string{`menu.csv line 1: column "price" is missing`}, 0},
		{
			"a doubled column is named", "name,kind,price,until,kind\n" + good,
			[]string{`menu.csv line 1: column "kind" stands in the header twice`},
			0,
		},
		{"semicolons are recognised", "name;kind;price;until\n", []string{"menu.csv line 1: columns must be separated by commas"}, 0},
		{"an empty file is said to be empty", "", []string{"menu.csv: the file is empty: a header line is needed"}, 0},
		{
			"a header that cannot be split ends the file", `name,"kind` + "\n" + good,
			[]string{"menu.csv line 1: has a quote that is not closed on the same line"},
			0,
		},
		{"too few fields are counted", header + "Каша,hot\n" + good, []string{"menu.csv line 2: has 2 fields, the header has 4"}, 1},
		{
			"too many fields are counted", header + good + "Каша,hot,1.00,,\n",
			[]string{"menu.csv line 3: has 5 fields, the header has 4"},
			1,
		},
		{
			"an open quote spoils its own line only", header + "\"Каша,hot,35.00,\n" + good,
			[]string{"menu.csv line 2: has a quote that is not closed on the same line"},
			1,
		},
		{
			"text after a closing quote is refused", header + `"Каша"ы,hot,35.00,` + "\n" + good,
			[]string{"menu.csv line 2: has text after the closing quote of field 1"},
			1,
		},
		{
			"a quote inside an unquoted field is refused", header + `Ка"ша,hot,35.00,` + "\n" + good,
			[]string{"menu.csv line 2: has a quote inside the unquoted field 1"},
			1,
		},
		{
			"text that is not UTF-8 is refused", header + "\xca\xe0\xf8\xe0,hot,35.00,\n" + good,
			[]string{"menu.csv line 2: is not UTF-8 text; save the file as UTF-8"},
			1,
		},
		{
			"a control character is refused", header + "Ка\x00ша,hot,35.00,\n" + good,
			[]string{"menu.csv line 2: has the control character U+0000 in field 1"},
			1,
		},
		{
			"a mark that turns writing round is refused", header + "Ка\u202eша,hot,35.00,\n" + good,
			[]string{"menu.csv line 2: has the formatting character U+202E in field 1"},
			1,
		},
		{
			"a field of a thousand and one letters is refused", header + strings.Repeat("ж", 1001) + ",hot,35.00,\n" + good,
			[]string{"menu.csv line 2: has more than 1000 characters in field 1"},
			1,
		},
		{
			"an endless line is passed over", header + strings.Repeat("x", 3*maxLine) + "\n" + good,
			[]string{"menu.csv line 2: is longer than 65536 bytes"},
			1,
		},
		{"everything wrong with a line is said at once", header + ",warm,35.0,22.11.2026\n" + good, []string{
			"menu.csv line 2: name is empty",
			`menu.csv line 2: kind "warm" must be one of hot, cold`,
			`menu.csv line 2: until "22.11.2026" must be a date like 2026-11-22`,
			`menu.csv line 2: price "35.0" must be a sum like 150.00`,
		}, 1},
		{
			"a text longer than its column takes is refused", header + strings.Repeat("ж", 201) + ",hot,35.00,\n",
			[]string{`menu.csv line 2: name "` + strings.Repeat("ж", 201) + `" is longer than 200 characters`},
			0,
		},
		{
			"a day that does not exist is refused", header + "Каша,hot,35.00,2026-02-30\n",
			[]string{`menu.csv line 2: until "2026-02-30" must be a date like 2026-11-22`},
			0,
		},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			t.Parallel()
			rows, report := readDishes(t, row.text)
			var got []string
			for _, problem := range report.Problems {
				got = append(got, problem.String())
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("the problems are %q; want %q", got, row.want)
			}
			if len(rows) != row.rows {
				t.Errorf("%d good rows were read; want %d", len(rows), row.rows)
			}
			if err := report.Err(); !errors.Is(err, ErrProblems) || !strings.Contains(err.Error(), row.want[0]) {
				t.Errorf("the error is %v; want it to name the first problem", err)
			}
		})
	}
}

func TestAllProblemsAreCountedAndAThousandAreKept(t *testing.T) {
	t.Parallel()
	_, report := readDishes(t, "name,kind,price,until\n"+strings.Repeat("Каша,warm,35.00,\n", 2500))
	if report.Found != 2500 || len(report.Problems) != 1000 {
		t.Fatalf("%d problems were found and %d kept", report.Found, len(report.Problems))
	}
	if want := "nothing was imported: 2500 problems, the first is menu.csv line 2"; !strings.HasPrefix(report.Err().Error(), want) {
		t.Fatalf("the error is %q; want it to begin %q", report.Err(), want)
	}
}

func TestAnAbsentFileHasNoRows(t *testing.T) {
	t.Parallel()
	report := &Report{}
	reader, err := dishes.Read(write(t, People, "x\n"), report)
	if err != nil {
		t.Fatal(err)
	}
	if reader.Next() || reader.Err() != nil || reader.Close() != nil || !report.OK() {
		t.Fatal("an absent file gave rows, errors or problems")
	}
}

func TestAFolderIsRefusedWhenAFileNameIsNotKnown(t *testing.T) {
	t.Parallel()
	for sentence, names := range map[string][]string{
		"a misspelt name":  {"people.csv", "gaurdians.csv"},
		"an empty folder":  {},
		"other files only": {"README.txt"},
	} {
		dir := t.TempDir()
		for _, name := range names {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "people.csv") {
			t.Errorf("%s: the error is %v; want one that lists the right names", sentence, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an absent folder: the error is %v", err)
	}
}

func TestNumbersOfThousandthsAreExact(t *testing.T) {
	t.Parallel()
	var report Report
	line := Line{file: Menu, number: 2, columns: map[string]int{"n": 0}, report: &report}
	for text, want := range map[string]int64{"0": 0, "12": 12000, "12.5": 12500, "0.125": 125} {
		line.fields = []string{text}
		if got := line.Decimal("n"); got == nil || *got != want {
			t.Errorf("%q was read as %v; want %d", text, got, want)
		}
	}
	for _, text := range []string{"12,5", "12.", ".5", "1.2345", "-1", "+1", "1e3", "x", "99999999999999999999"} {
		line.fields = []string{text}
		if got := line.Decimal("n"); got != nil {
			t.Errorf("%q was read as %d; want a problem", text, *got)
		}
	}
	line.fields = []string{""}
	if found := report.Found; line.Decimal("n") != nil || report.Found != found {
		t.Error("an empty field must be no number and no problem")
	}
}

// Everything this reader takes, a reader of RFC 4180 takes with the same meaning.
func FuzzSplit(f *testing.F) {
	for _, seed := range []string{"a,b", `"a""b",c`, `"",`, `"a,b","c"d`, `a"b`, `"`, `"""`, `""""`, ",,,", " a , b ", "\ufeffx"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsAny(text, "\r\n") || text == "" {
			return
		}
		fields, reason := split(text, nil)
		if reason != "" {
			return
		}
		want, err := csv.NewReader(strings.NewReader(text)).Read()
		if err != nil {
			t.Fatalf("%q was split into %q, but RFC 4180 says %v", text, fields, err)
		}
		for i := range want {
			want[i] = strings.TrimSpace(want[i])
		}
		if !slices.Equal(fields, want) {
			t.Fatalf("%q was split into %q; RFC 4180 says %q", text, fields, want)
		}
	})
}

func BenchmarkReadAMillionRows(b *testing.B) {
	dir := b.TempDir()
	text := "name,kind,price,until\n" + strings.Repeat("Каша «Дружба» с маслом,hot,35.00,2026-11-22\n", 1_000_000)
	if err := os.WriteFile(filepath.Join(dir, Menu), []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	folder, err := Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		rows := 0
		reader, err := dishes.Read(folder, &Report{})
		if err != nil {
			b.Fatal(err)
		}
		for reader.Next() {
			rows++
		}
		if err := errors.Join(reader.Err(), reader.Close()); err != nil || rows != 1_000_000 {
			b.Fatalf("%d rows were read, %v", rows, err)
		}
	}
}
