package ussd

import (
	"time"

	"zvonok/access/phone"
	"zvonok/templates"
)

// Place names a screen and what it is about: where in the menu a dialogue stands. The engine keeps places, compares
// them and hands them back; only the menu knows what they mean. The zero Place is the first screen.
type Place struct {
	Name string // "" for the first screen, otherwise a name of the menu's own
	Arg  int64  // whose or which, in the menu's own numbering; never read from what a person typed
}

// Choice is one key of a screen and where it leads.
type Choice struct {
	Key   string // what the person types: one or more digits, neither "0", "00" nor "9"
	Label string // what stands beside the key
	To    Place
}

// Screen is a named state of a dialogue: what it says and what each key leads to. It holds words and places only, so
// that an open dialogue costs little memory and can be shown again by asking for its place.
//
// The engine lays a screen out in this order: the lines, the items with a line each, the bar on one line. It cuts the
// result into pages and adds the keys "9" (more), "0" (back; on the first screen: leave); "00" leads to the first
// screen from anywhere. Keys of items and of the bar work on every page of the screen, shown or not.
type Screen struct {
	Place Place           // where this screen is found again; a place that acts returns that of the screen it shows
	Style templates.Style // language and alphabet of the words the engine adds
	Lines []string        // what the screen says; a line longer than a page is broken between words
	Items []Choice        // choices with a line each
	Bar   []Choice        // choices on one line, "1 Meals 2 Visits"; those with no room for it follow under "9"
	Lead  int             // how many choices of the bar are shown together or not at all, before a shorter bar is tried

	// End says that nothing is asked: the dialogue closes with the last page. Screens that only answer end, because an
	// open dialogue keeps the phone's channel busy.
	End bool

	// SMS is the same answer as an SMS would say it. It is sent, once, when the dialogue dies before the phone showed
	// the screen and the operator's setting asks for it. Empty for screens that say nothing about anybody.
	SMS string

	// Rest are the dialled tokens this screen made no use of; the engine presses them as keys, one after another.
	Rest []string
}

// Visit is the question the engine asks the menu: what does this phone see at this place, now.
type Visit struct {
	Link  string       // the operator's or HTTP caller's name in the settings
	Phone phone.Number // who dials, as asserted by a link with the role "ussd"
	Place Place
	// Path are the shortcuts dialled after the code, "2" in *377*888*2#; only with the zero Place of a begin.
	Path []string
	// Latin says that the code was dialled with a leading "#" or that the link carries no Cyrillic: answer in Latin.
	Latin bool
	// Hint is the language the operator says the phone is set to, "" when it says nothing.
	Hint templates.Language
	// SIM is Config.SIM of the IMSI the operator reported, "" when it reported none or is not trusted to.
	SIM string
	At  time.Time
}
