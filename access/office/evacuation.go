package office

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"time"

	"zvonok/access/door"
	"zvonok/ledger"
)

//go:embed evacuation.html
var evacuationSource string

//go:embed evacuation.css
var evacuationStyle string

var evacuationPage = template.Must(template.New("evacuation").Parse(evacuationSource))

// evacuationPolicy lets the page have its own style and nothing else.
var evacuationPolicy = func() string {
	sum := sha256.Sum256([]byte(evacuationStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

// evacuation is what the page shows.
type evacuation struct {
	At        string
	Style     template.CSS
	Total     int
	Buildings []evacuationBuilding
}

type evacuationBuilding struct {
	HeadCount
	Groups []evacuationGroup
}

type evacuationGroup struct {
	Name   string
	People []door.Present
}

// WriteEvacuationList writes who is inside as a page to be printed: a table for
// each building and group, with a box to tick beside each name. It stands by
// itself and needs no network.
func WriteEvacuationList(w io.Writer, people []door.Present, now time.Time) error {
	page := evacuation{At: now.Format("02.01.2006 15:04"), Style: template.CSS(evacuationStyle), Total: len(people)}
	for _, c := range CountHeads(people) {
		page.Buildings = append(page.Buildings, evacuationBuilding{HeadCount: c})
	}
	at := 0
	for i := range page.Buildings {
		b := &page.Buildings[i]
		for ; at < len(people) && people[at].Building == b.Building; at++ {
			name := people[at].Group
			if people[at].Kind == ledger.Staff {
				name = "Сотрудники"
			}
			if n := len(b.Groups); n == 0 || b.Groups[n-1].Name != name {
				b.Groups = append(b.Groups, evacuationGroup{Name: name})
			}
			g := &b.Groups[len(b.Groups)-1]
			g.People = append(g.People, people[at])
		}
	}
	if err := evacuationPage.Execute(w, page); err != nil {
		return fmt.Errorf("write the evacuation list: %w", err)
	}
	return nil
}
