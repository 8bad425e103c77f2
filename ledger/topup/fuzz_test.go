package topup

import (
	"encoding/xml"
	"strings"
	"testing"
	"time"

	"zvonok/ledger/money"
)

func FuzzParseSum(f *testing.F) {
	for _, seed := range []string{
		"500.00", "500", "0.00", "500,00", "5e2", "-1.00", "+1.00", " 1.00", "1.000", "1.0", "100000000000000000000.00",
		"00.00", "0x10", "NaN", "1_000.00", "", ".", ".00", "-", "٥.٠٠",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, dialect := range []Dialect{OSMP, Sber} {
			sum, outcome := parseSum(dialect, text)
			if outcome != OK {
				if sum != 0 {
					t.Errorf("%q is %s and yet %s", text, outcome, sum)
				}
				continue
			}
			// The only texts of a sum are its own, and for Sberbank the one without kopecks.
			if own := sum.String(); text != own && !(dialect == Sber && text+".00" == own) || sum < 0 || sum > money.Max {
				t.Errorf("%q was read as %s", text, own)
			}
		}
	})
}

func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		"command=check&txn_id=1&account=00207316&sum=10.00", "ACTION=payment&ACCOUNT=00207316&AMOUNT=1&PAY_ID=1&PAY_DATE=22.11.2026_08:30:15",
		"command=pay&command=check", "txn_id=%3C%2Fa%3E", "a=%zz", ";", "command=status&prv_txn=99999999999999999999",
		"command=cancel&cancel_txn_id=1&txn_id=2", "action=pay&command=check",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		ps, err := parseParameters(query)
		if err != nil {
			return
		}
		for _, dialect := range []Dialect{OSMP, Sber} {
			p := fuzzPartner(t, dialect)
			r, outcome := p.read(ps)
			if outcome == OK && r.command == payCommand && (r.txn == "" || r.account == "" || r.sum <= 0 || r.bankAt.IsZero()) {
				t.Errorf("%q is a payment of %+v", query, r)
			}
			var any struct{}
			if body := p.render(r.protocol, answer{outcome: outcome, txn: r.txn}); xml.Unmarshal(body, &any) != nil {
				t.Errorf("%q is answered %s", query, body)
			}
		}
	})
}

func FuzzParseRegistry(f *testing.F) {
	const good = "H;mkb;7700000000;2026-11-21;1\nP;1;2026-11-21T08:30:15+03:00;00207316;500.00;0.00;T\nT;1;500.00\n"
	for _, seed := range []string{
		good, "\ufeff" + good, strings.ReplaceAll(good, "\n", "\r\n"), good[:40], strings.Replace(good, "500.00", "5e2", 1),
		"", ";;;;", "H;mkb;;2026-11-21;1\nT;0;0.00", "Total:\t1\t5.00\n21.11.2026\t1\t00207316\t5.00\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		own, columns := fuzzPartner(t, OSMP), fuzzPartner(t, OSMP)
		columns.Layout = &Layout{
			Separator: "\t", Time: "02.01.2006", Total: "Total:", Encoding: "windows-1251",
			Columns: Columns{At: 1, Txn: 2, Account: 3, Amount: 4},
		}
		for _, p := range []*Partner{own, columns} {
			r, err := parseRegistry(p, "x.txt", data)
			if err != nil {
				if len(r.lines) > 0 {
					t.Error("a file was refused and its lines kept")
				}
				continue
			}
			total := money.Amount(0)
			for _, l := range r.lines {
				total += l.amount
				if l.amount <= 0 || !validTxn(l.txn) || l.account == "" || !plausible(l.at) {
					t.Errorf("a line was read as %+v", l)
				}
			}
			if total != r.total || r.day.IsZero() || r.number < 1 {
				t.Errorf("the file was read as %s of %s on %s", r.total, total, r.day)
			}
		}
	})
}

func fuzzPartner(t *testing.T, dialect Dialect) *Partner {
	p := &Partner{Name: "mkb", Dialect: dialect, TimeZone: "Europe/Moscow", Min: DefaultMin, Max: DefaultMax, AddedAt: time.Time{}}
	if err := p.prepare(); err != nil {
		t.Fatal(err)
	}
	return p
}
