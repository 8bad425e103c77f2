package topup

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/ledger"
	"zvonok/ledger/money"
	"zvonok/ledger/pg"
)

// How passwords are hashed.
const (
	saltBytes = 16
	hashBytes = 32
	// hashRounds makes a guess cost some 50 ms. A password that was right is
	// remembered as a keyed hash, so that a bank's every request does not.
	hashRounds = 200_000
	// minPassword and minSecret are in bytes.
	minPassword = 8
	minSecret   = 8
)

// Default limits of checks in a minute. A city of 1.5 million makes 13 requests
// a second with all its banks together, spread over all account numbers; two of
// a hundred numbers are mistyped.
const (
	defaultMaxChecks       = 1500
	defaultMaxWrong        = 200
	defaultMaxRangeWrong   = 40
	defaultMaxRangeNumbers = 120
)

// PartnerID is the id of a partner.
type PartnerID int64

// Show says how much of a child's name a check shows (D5).
type Show string

// The ways to show a name.
const (
	// Masked shows the beginning of the family name.
	Masked Show = "masked"
	// Short shows family name and given name (R37).
	Short Show = "short"
	// Full shows all of the name (R33).
	Full Show = "full"
)

// Partner is a bank or a network of terminals.
type Partner struct {
	ID      PartnerID `json:"id"`
	Name    string    `json:"name"`
	Dialect Dialect   `json:"dialect"`
	// PaymentCodes are the payees it takes money for (R36).
	PaymentCodes []string `json:"payees"`
	// Allow are the networks it calls from.
	Allow []netip.Prefix `json:"allow"`
	// Login is its name in Basic authentication; empty when it uses none.
	Login string `json:"user,omitempty"`
	Show  Show   `json:"show"`
	// Min and Max bound a payment.
	Min money.Amount `json:"min"`
	Max money.Amount `json:"max"`
	// Codes are its own numbers of outcomes.
	Codes map[Outcome]int `json:"codes,omitempty"`
	// Layout is that of its registries; nil means our own format.
	Layout *Layout `json:"layout,omitempty"`
	// MayCancel tells whether it may take payments back.
	MayCancel bool `json:"may_cancel"`
	// Signed tells whether its requests carry a hash.
	Signed bool `json:"signed"`
	// TimeZone is that of the times it sends.
	TimeZone string      `json:"time_zone"`
	Limits   CheckLimits `json:"check_limits"`
	// Disabled tells that its requests are refused. Its registries are taken still.
	Disabled bool      `json:"disabled"`
	AddedAt  time.Time `json:"added_at"`

	salt, hash        []byte
	secret            string
	zone              *time.Location
	table             codeTable
	clearing, settled ledger.AccountID
}

// CheckLimits bound the checks of a partner in a minute; beyond them checks are
// answered as technically impossible for a while. A range is ten thousand
// neighbouring account numbers.
type CheckLimits struct {
	// Checks bounds all checks.
	Checks int `json:"checks"`
	// Wrong bounds those of numbers that are wrong or not known.
	Wrong int `json:"wrong"`
	// RangeWrong bounds those within a range.
	RangeWrong int `json:"range_wrong"`
	// RangeNumbers bounds the different numbers within a range.
	RangeNumbers int `json:"range_numbers"`
}

// source is under which name payments stand in the book.
func (p *Partner) source() string { return "bank/" + p.Name }

// NewPartner asks for a partner. Name, Dialect, PaymentCodes and Allow are
// needed; zero values of the rest mean the defaults.
type NewPartner struct {
	// Name stands in the address of its endpoint: up to 32 small letters, digits, - and _.
	Name    string
	Dialect Dialect
	// PaymentCodes are codes of payees in the register.
	PaymentCodes []string
	Allow        []netip.Prefix
	// Login and Password switch Basic authentication on.
	Login, Password string
	// Secret switches signatures on.
	Secret    string
	Show      Show
	Min, Max  money.Amount
	Codes     map[Outcome]int
	Layout    *Layout
	MayCancel bool
	// TimeZone is Europe/Moscow when empty.
	TimeZone string
	Limits   CheckLimits
}

// ErrPartner says that a partner cannot be as asked; the error's text says why.
var ErrPartner = errors.New("partner")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrPartner, fmt.Sprintf(format, args...))
}

// AddPartner adds a partner and opens its clearing account. It works at once in
// all processes, within two seconds. A setting that cannot be is an ErrPartner.
func AddPartner(ctx context.Context, q pg.Querier, n NewPartner, now time.Time) (Partner, error) {
	p, err := n.partner(ctx, q, nil)
	if errors.Is(err, ErrPartner) {
		return Partner{}, err
	}
	if err != nil {
		return Partner{}, fmt.Errorf("add a partner: %w", err)
	}
	p.AddedAt = now
	codes, layout, err := p.written()
	if err != nil {
		return Partner{}, fmt.Errorf("add a partner: %w", err)
	}
	accounts, err := ledger.SystemAccounts(ctx, q,
		ledger.SystemAccount{Kind: ledger.Bank, Owner: p.Name}, ledger.SystemAccount{Kind: ledger.Settled, Owner: p.Name})
	if err != nil {
		return Partner{}, fmt.Errorf("add a partner: %w", err)
	}
	p.clearing, p.settled = accounts[0], accounts[1]
	err = q.QueryRow(ctx, `
		INSERT INTO topup.partner (name, dialect, payment_codes, allow, login, password_salt, password_hash, secret, show,
		                           min_amount, max_amount, codes, layout, may_cancel, time_zone, max_checks, max_wrong,
		                           max_range_wrong, max_range_numbers, clearing_id, settled_id, added_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)
		ON CONFLICT (name) DO NOTHING
		RETURNING id`,
		p.Name, string(p.Dialect), p.PaymentCodes, p.Allow, p.Login, p.salt, p.hash, p.secret, string(p.Show),
		int64(p.Min), int64(p.Max), codes, layout, p.MayCancel, p.TimeZone, p.Limits.Checks, p.Limits.Wrong,
		p.Limits.RangeWrong, p.Limits.RangeNumbers, int64(p.clearing), int64(p.settled), now).Scan(&p.ID)
	if errors.Is(err, pgx.ErrNoRows) {
		return Partner{}, refuse("there is one named %s already", p.Name)
	}
	if err != nil {
		return Partner{}, fmt.Errorf("add a partner: %w", err)
	}
	return p, nil
}

var partnerName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)

// partner makes a partner of what was asked, with an ErrPartner for what cannot
// be. had is the one whose settings these are to be; nil when it is new.
func (n NewPartner) partner(ctx context.Context, q pg.Querier, had *Partner) (Partner, error) {
	p := Partner{}
	if had != nil {
		p = *had
	}
	if n.Login == "" {
		p.salt, p.hash = nil, nil
	}
	if err := n.complete(p.hash != nil); err != nil {
		return Partner{}, err
	}
	unknown, err := unknownPaymentCodes(ctx, q, n.PaymentCodes)
	if err != nil {
		return Partner{}, err
	}
	if len(unknown) > 0 {
		return Partner{}, refuse("no payee has the payment code %q; import payees.csv first", unknown[0])
	}
	p.Name, p.Dialect, p.PaymentCodes, p.Allow, p.Login, p.Show = n.Name, n.Dialect, n.PaymentCodes, n.Allow, n.Login, n.Show
	p.Min, p.Max, p.Codes, p.Layout, p.MayCancel, p.TimeZone = n.Min, n.Max, n.Codes, n.Layout, n.MayCancel, n.TimeZone
	p.Limits, p.Signed, p.secret = n.Limits, n.Secret != "", n.Secret
	if err := p.prepare(); err != nil {
		return Partner{}, refuse("%s", err)
	}
	if n.Password != "" {
		p.salt = make([]byte, saltBytes)
		rand.Read(p.salt) // never fails
		if p.hash, err = hashPassword(n.Password, p.salt); err != nil {
			return Partner{}, err
		}
	}
	return p, nil
}

// written returns the numbers of its answers and the layout as they are stored.
func (p *Partner) written() (codes, layout []byte, err error) {
	if codes, err = json.Marshal(p.Codes); err != nil || p.Layout == nil {
		return codes, nil, err
	}
	layout, err = json.Marshal(p.Layout)
	return codes, layout, err
}

// complete fills the defaults in and refuses what cannot be. A partner that has
// a password keeps it when no other is given.
func (n *NewPartner) complete(hasPassword bool) error {
	setDefault(&n.Show, Masked)
	setDefault(&n.Min, DefaultMin)
	setDefault(&n.Max, DefaultMax)
	setDefault(&n.TimeZone, "Europe/Moscow")
	setDefault(&n.Limits.Checks, defaultMaxChecks)
	setDefault(&n.Limits.Wrong, defaultMaxWrong)
	setDefault(&n.Limits.RangeWrong, defaultMaxRangeWrong)
	setDefault(&n.Limits.RangeNumbers, defaultMaxRangeNumbers)
	if n.Codes == nil {
		n.Codes = map[Outcome]int{}
	}
	switch {
	case !partnerName.MatchString(n.Name):
		return refuse("the name %q is not made of up to 32 small letters, digits, - and _", n.Name)
	case n.Dialect != OSMP && n.Dialect != Sber:
		return refuse("the dialect is %s or %s, not %q", OSMP, Sber, n.Dialect)
	case len(n.PaymentCodes) == 0:
		return refuse("it needs the payment code of at least one payee")
	case len(n.Allow) == 0:
		return refuse("it needs the network it calls from")
	case slices.ContainsFunc(n.Allow, untidy):
		return refuse("a network is written like 192.0.2.0/24, with no bits beyond its length")
	case (n.Login == "") != (n.Password == "" && !hasPassword):
		return refuse("a user and a password go together")
	case n.Password != "" && len(n.Password) < minPassword:
		return refuse("the password has fewer than %d bytes", minPassword)
	case n.Secret != "" && len(n.Secret) < minSecret:
		return refuse("the secret has fewer than %d bytes", minSecret)
	case n.Show != Masked && n.Show != Short && n.Show != Full:
		return refuse("a name is shown %s, %s or %s, not %q", Masked, Short, Full, n.Show)
	case n.Min < DefaultMin || n.Max > DefaultMax || n.Min > n.Max:
		return refuse("the limits %s to %s are not within %s to %s", n.Min, n.Max, DefaultMin, DefaultMax)
	case n.Limits.Checks < 1 || n.Limits.Wrong < 1 || n.Limits.RangeWrong < 1 || n.Limits.RangeNumbers < 1:
		return refuse("limits of checks are above zero")
	}
	return nil
}

// untidy tells whether a network is not one, or has bits beyond its length.
func untidy(network netip.Prefix) bool { return !network.IsValid() || network != network.Masked() }

func setDefault[T comparable](value *T, otherwise T) {
	var none T
	if *value == none {
		*value = otherwise
	}
}

func unknownPaymentCodes(ctx context.Context, q pg.Querier, codes []string) ([]string, error) {
	rows, err := q.Query(ctx, `
		SELECT c FROM unnest($1::text[]) AS c
		 WHERE NOT EXISTS (SELECT FROM ledger.payee y WHERE y.payment_code = c)
		 ORDER BY c`, codes)
	if err != nil {
		return nil, fmt.Errorf("look up payment codes: %w", err)
	}
	unknown, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look up payment codes: %w", err)
	}
	return unknown, nil
}

// prepare makes what follows from the settings.
func (p *Partner) prepare() (err error) {
	if p.zone, err = time.LoadLocation(p.TimeZone); err != nil {
		return fmt.Errorf("time zone: %w", err)
	}
	if p.table, err = newCodeTable(p.Codes); err != nil {
		return err
	}
	if p.Layout != nil {
		return p.Layout.check()
	}
	return nil
}

// ListPartners returns all partners by name.
func ListPartners(ctx context.Context, q pg.Querier) ([]Partner, error) {
	rows, err := q.Query(ctx, `
		SELECT id, name, dialect, payment_codes, allow, login, password_salt, password_hash, secret, show,
		       min_amount, max_amount, codes, layout, may_cancel, time_zone, max_checks, max_wrong,
		       max_range_wrong, max_range_numbers, clearing_id, settled_id, disabled, added_at
		  FROM topup.partner
		 ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("read partners: %w", err)
	}
	partners, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p Partner, err error) {
		var codes, layout []byte
		if err := row.Scan(&p.ID, &p.Name, &p.Dialect, &p.PaymentCodes, &p.Allow, &p.Login, &p.salt, &p.hash, &p.secret,
			&p.Show, &p.Min, &p.Max, &codes, &layout, &p.MayCancel, &p.TimeZone, &p.Limits.Checks, &p.Limits.Wrong,
			&p.Limits.RangeWrong, &p.Limits.RangeNumbers, &p.clearing, &p.settled,
			&p.Disabled, &p.AddedAt); err != nil {
			return p, err
		}
		p.Signed = p.secret != ""
		if err := json.Unmarshal(codes, &p.Codes); err != nil {
			return p, fmt.Errorf("partner %d: codes: %w", p.ID, err)
		}
		if layout != nil {
			if err := json.Unmarshal(layout, &p.Layout); err != nil {
				return p, fmt.Errorf("partner %d: layout: %w", p.ID, err)
			}
		}
		if err := p.prepare(); err != nil {
			return p, fmt.Errorf("partner %d: %w", p.ID, err)
		}
		return p, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read partners: %w", err)
	}
	return partners, nil
}

// findPartner returns the partner of a name, or an ErrPartner.
func findPartner(ctx context.Context, q pg.Querier, name string) (*Partner, error) {
	partners, err := ListPartners(ctx, q)
	if err != nil {
		return nil, err
	}
	for i := range partners {
		if partners[i].Name == name {
			return &partners[i], nil
		}
	}
	return nil, refuse("there is none named %q", name)
}

func hashPassword(password string, salt []byte) ([]byte, error) {
	return pbkdf2.Key(sha256.New, password, salt, hashRounds, hashBytes)
}

// rightPassword compares in constant time.
func (p *Partner) rightPassword(password string) bool {
	hash, err := hashPassword(password, p.salt)
	return err == nil && hmac.Equal(hash, p.hash)
}
