package topup

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger/money"
	"zvonok/ledger/pg"
	"zvonok/ledger/registry"
)

// pointsData are the ways to pay with their instructions (R31, R33, R36 to R38).
//
//go:embed points.json
var pointsData []byte

// Text is what people read, in both languages.
type Text struct {
	RU string `json:"ru"`
	EN string `json:"en"`
}

// Steps are instructions, one after the other, in both languages.
type Steps struct {
	RU []string `json:"ru"`
	EN []string `json:"en"`
}

// Point is a way to top an account up, with the places it is found at.
type Point struct {
	Code string `json:"code"`
	Bank Text   `json:"bank"`
	// Kind is online, terminal or office.
	Kind  string `json:"kind"`
	Title Text   `json:"title"`
	// Pays is what it takes: cash, card.
	Pays []string     `json:"pays"`
	Min  money.Amount `json:"min"`
	Max  money.Amount `json:"max"`
	// Commission is what it takes for itself.
	Commission money.Amount `json:"commission"`
	// Asks is what the payer must know: account, payment_code.
	Asks []string `json:"asks"`
	// Phone is the bank's; empty when there is none.
	Phone string `json:"phone,omitempty"`
	Steps Steps  `json:"steps"`
	// Offices are the places that are known.
	Offices []Office `json:"offices"`
}

// Office is a place of a bank (R36).
type Office struct {
	// Point is the code of the way to pay.
	Point   string `json:"-"`
	Name    string `json:"name"`
	Address string `json:"address"`
	Phone   string `json:"phone,omitempty"`
	Metro   string `json:"metro,omitempty"`
	Hours   string `json:"hours"`
	Break   string `json:"break,omitempty"`
	Weekend string `json:"weekend,omitempty"`
}

// PayeeCode is whom a payer pays: what a bank that asks for a payment code wants to know (R36).
type PayeeCode struct {
	Name        string `json:"name"`
	INN         string `json:"inn"`
	PaymentCode string `json:"payment_code"`
}

// Directory is where and how to pay.
type Directory struct {
	Points []Point     `json:"points"`
	Payees []PayeeCode `json:"payees"`
}

// ReadDirectory returns all ways to pay, with the offices and payees as they
// are in the database now.
func ReadDirectory(ctx context.Context, q pg.Querier) (Directory, error) {
	var d Directory
	if err := json.Unmarshal(pointsData, &d.Points); err != nil {
		return d, fmt.Errorf("read the ways to pay: %w", err)
	}
	place := make(map[string]int, len(d.Points))
	for i := range d.Points {
		d.Points[i].Offices = []Office{}
		place[d.Points[i].Code] = i
	}
	var batch pgx.Batch
	batch.Queue(`
		SELECT point, name, address, phone, metro, hours, break, weekend
		  FROM topup.office
		 ORDER BY point, name, address`).Query(func(rows pgx.Rows) error {
		var o Office
		_, err := pgx.ForEachRow(rows, []any{&o.Point, &o.Name, &o.Address, &o.Phone, &o.Metro, &o.Hours, &o.Break, &o.Weekend},
			func() error {
				if i, known := place[o.Point]; known {
					d.Points[i].Offices = append(d.Points[i].Offices, o)
				}
				return nil
			})
		return err
	})
	d.Payees = []PayeeCode{}
	batch.Queue(`SELECT name, inn, payment_code FROM ledger.payee ORDER BY name`).Query(func(rows pgx.Rows) (err error) {
		d.Payees, err = pgx.AppendRows(d.Payees, rows, pgx.RowToStructByPos[PayeeCode])
		return err
	})
	if err := q.SendBatch(ctx, &batch).Close(); err != nil {
		return d, fmt.Errorf("read offices and payees: %w", err)
	}
	return d, nil
}

// maxOfficeText bounds each text of an office, in characters.
const maxOfficeText = 200

var officeTable = registry.Table[Office]{
	File:    registry.Offices,
	Columns: []string{"point", "name", "address", "phone", "metro", "hours", "break", "weekend"},
	Parse: func(line *registry.Line) Office {
		return Office{
			Point: line.Required("point", maxOfficeText), Name: line.Required("name", maxOfficeText),
			Address: line.Required("address", maxOfficeText), Phone: line.Text("phone"), Metro: line.Text("metro"),
			Hours: line.Required("hours", maxOfficeText), Break: line.Text("break"), Weekend: line.Text("weekend"),
		}
	},
}

// Import imports offices.csv: the places of banks, in place of all there were
// (R36). An office of a way to pay that does not exist is a problem. It is a
// registry.Import.
func Import(ctx context.Context, tx pgx.Tx, folder *registry.Folder, report *registry.Report) (err error) {
	var points []Point
	if err := json.Unmarshal(pointsData, &points); err != nil {
		return fmt.Errorf("read the ways to pay: %w", err)
	}
	known := map[string]bool{}
	var codes []string
	for _, p := range points {
		known[p.Code] = true
		codes = append(codes, p.Code)
	}
	reader, err := officeTable.Read(folder, report)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	var offices []Office
	for reader.Next() {
		o := reader.Row()
		if !known[o.Point] {
			report.Add(registry.Offices, reader.Number(),
				fmt.Sprintf("there is no way to pay %q; the ways are %s", o.Point, strings.Join(codes, ", ")))
		}
		offices = append(offices, o)
	}
	if err := reader.Err(); err != nil {
		return err
	}
	if !report.OK() || !folder.Has(registry.Offices) {
		return nil
	}
	if err := ReplaceOffices(ctx, tx, offices); err != nil {
		return err
	}
	report.Done(registry.Count{File: registry.Offices, Added: len(offices)})
	return nil
}

var _ registry.Import = Import

// ReplaceOffices puts the offices in place of all there were.
func ReplaceOffices(ctx context.Context, tx pgx.Tx, offices []Office) error {
	if _, err := tx.Exec(ctx, `DELETE FROM topup.office`); err != nil {
		return fmt.Errorf("replace offices: %w", err)
	}
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{"topup", "office"},
		[]string{"point", "name", "address", "phone", "metro", "hours", "break", "weekend"},
		pgx.CopyFromSlice(len(offices), func(i int) ([]any, error) {
			o := offices[i]
			return []any{o.Point, o.Name, o.Address, o.Phone, o.Metro, o.Hours, o.Break, o.Weekend}, nil
		})); err != nil {
		return fmt.Errorf("replace offices: %w", err)
	}
	return nil
}

// pointsFresh is how long a directory is good for.
const pointsFresh = 2 * time.Second

// points keeps the directory: everybody may ask for it, as often as he likes.
type points struct {
	mu        sync.Mutex
	readAt    time.Time
	directory Directory
	err       error
}

// whereToPay returns the directory as it was at most pointsFresh ago. One reads it
// and the others wait for him; who asks changes nothing in it.
func (e *Endpoints) whereToPay(ctx context.Context) (Directory, error) {
	e.points.mu.Lock()
	defer e.points.mu.Unlock()
	if age := e.now().Sub(e.points.readAt); !e.points.readAt.IsZero() && age >= 0 && age < pointsFresh {
		return e.points.directory, e.points.err
	}
	// Not the context of the one who reads: he may go, and the others stay.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
	defer cancel()
	e.points.directory, e.points.err = ReadDirectory(ctx, e.pool)
	e.points.readAt = e.now()
	return e.points.directory, e.points.err
}

// DirectoryHandler serves GET /api/v1/topup-points: the Directory as JSON. With
// metro=NAME only offices near that station are listed.
func (e *Endpoints) DirectoryHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		d, err := e.whereToPay(r.Context())
		if err != nil {
			e.log.Error("read where to pay", "error", err)
			w.Header().Set("Retry-After", "30")
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusServiceUnavailable)
			w.Write([]byte(`{"title":"Service Unavailable","status":503}` + "\n")) // who has gone asks again
			return
		}
		if metro := r.URL.Query().Get("metro"); metro != "" {
			d = d.near(metro)
		}
		body, err := json.Marshal(d)
		if err != nil {
			e.log.Error("write where to pay", "error", err)
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Cache-Control", "public, max-age=300")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Write(append(body, '\n')) // who has gone asks again
	})
}

// near returns it with only the offices at a station.
func (d Directory) near(metro string) Directory {
	d.Points = slices.Clone(d.Points)
	for i := range d.Points {
		all := d.Points[i].Offices
		d.Points[i].Offices = []Office{}
		for _, o := range all {
			if strings.EqualFold(o.Metro, metro) {
				d.Points[i].Offices = append(d.Points[i].Offices, o)
			}
		}
	}
	return d
}
