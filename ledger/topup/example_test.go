package topup_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the goldens anew")

// ours are the numbers we give, which depend on what else was booked before.
var ours = regexp.MustCompile(`(<(?:prv_txn|EXT_ID|ext_id)>|Операция )[0-9]+`)

// golden compares an answer, but for the numbers we give, with the file of that name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	got = ours.ReplaceAllString(got, "${1}N")
	path := filepath.Join("testdata", name+".xml")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n got %s\nwant %s", name, got, want)
	}
}

// The examples of the specification, in its order, then their kin (R33, R35, R37, R38, R39).
func TestBanksAreAnsweredAsTheSpecificationsExamples(t *testing.T) {
	t.Parallel()
	c := newCity(t).withBanks()
	for _, step := range []struct{ name, query string }{
		{"osmp-check", "/pay/osmp/mkb?command=check&txn_id=880055501234&account=00207316&sum=10.00"},
		{"sber-check", "/pay/sber/sber?ACTION=check&ACCOUNT=00207316"},
		{"sber-check-protocol-2", "/pay/sber/sber?command=check&txn_id=1&account=00207316&sum=10.00"},
		{"osmp-pay", "/pay/osmp/mkb?command=pay&txn_id=880055501234&txn_date=20261122083015&account=00207316&sum=500.00"},
		{"osmp-pay", "/pay/osmp/mkb?command=pay&txn_id=880055501234&txn_date=20261122083015&account=00207316&sum=500.00"},
		{"osmp-check-wrong-digit", "/pay/osmp/mkb?command=check&txn_id=880055501235&account=00207315&sum=10.00"},
		{"sber-payment", "/pay/sber/sber?ACTION=payment&ACCOUNT=00207316&AMOUNT=500.00&PAY_ID=7000000000000042&PAY_DATE=22.11.2026_08:30:15"},
		{"sber-payment-again", "/pay/sber/sber?ACTION=payment&ACCOUNT=00207316&AMOUNT=500.00&PAY_ID=7000000000000042&PAY_DATE=22.11.2026_08:30:15"},
		{"sber-pay-protocol-2", "/pay/sber/sber?command=pay&txn_id=43&txn_date=20261122083015&account=00207316&sum=100.00&serv_id=916"},
		{"sber-pay-protocol-2-again", "/pay/sber/sber?command=pay&txn_id=43&txn_date=20261122083015&account=00207316&sum=100.00&serv_id=916"},
		{"osmp-status", "/pay/osmp/mkb?command=status&txn_id=880055501234"},
		{"sber-status", "/pay/sber/sber?ACTION=status&PAY_ID=7000000000000042"},
	} {
		golden(t, step.name, c.ask(step.query))
	}
	if got := c.wallet(example).Posted.String(); got != "1243.50" {
		t.Errorf("the balance is %s", got)
	}
	// What the specification prints, spaces between elements aside.
	for name, says := range map[string][]string{
		"osmp-check": {
			`<response><osmp_txn_id>880055501234</osmp_txn_id><result>0</result><comment/>`,
			`<fields><field1 name="name" type="disp">Ив*** П.</field1><field2 name="balance" type="disp">143.50</field2>`,
			`<field3 name="payee" type="prt-data">АО Пример, ИНН 7700000000</field3></fields></response>`,
		},
		"osmp-pay": {`<response><osmp_txn_id>880055501234</osmp_txn_id><prv_txn>N</prv_txn><sum>500.00</sum><result>0</result>` +
			`<comment>credited</comment>`},
		"osmp-check-wrong-digit": {`<response><osmp_txn_id>880055501235</osmp_txn_id><result>4</result><comment>account number</comment></response>`},
		"sber-check": {`<response><CODE>0</CODE><MESSAGE>found</MESSAGE><FIO>Ив*** Пётр</FIO><BALANCE>143.50</BALANCE>` +
			`<REC_SUM>500.00</REC_SUM><INFO>school meals</INFO></response>`},
		"sber-payment-again": {`<response><CODE>8</CODE><MESSAGE>duplicate</MESSAGE><EXT_ID>N</EXT_ID>` +
			`<REG_DATE>22.11.2026_08:30:16</REG_DATE><AMOUNT>500.00</AMOUNT></response>`},
	} {
		file, err := os.ReadFile(filepath.Join("testdata", name+".xml"))
		c.must(err)
		for _, part := range says {
			if !strings.Contains(string(file), part) {
				t.Errorf("%s does not say %s", name, part)
			}
		}
	}
	c.sound()
}
