package reader

import "time"

// Limits of the device interface (contract, section 5) and of this process.
const (
	maxBody      = 1 << 20 // octets of an upload
	maxEvents    = 1000    // events of an upload
	maxQuestion  = 64 << 10
	maxItems     = 100       // items of a sale
	maxQuantity  = 1000      // of one item
	maxText      = 64        // characters of a name, a code or a reason; longer ones are cut
	maxDish      = 200       // characters of what a sale lists: menus and products have names of that length, and bans go by them
	maxDishBytes = 400       // and its octets
	maxKept      = 32 << 10  // octets of a rejected event that are kept
	maxDepth     = 16        // of brackets in a rejected event that is kept
	maxSeq       = 1 << 53   // JSON numbers are exact up to here in every language
	maxSaleTotal = 10_000_00 // kopecks: no child eats for more, a slip of the keys does

	bodyTime = 15 * time.Second // for reading a body: slower than any real link, faster than a slow attack

	maxUploads       = 2048      // uploads under way in this process
	maxOctets        = 128 << 20 // of their bodies; what is made of a body takes some times that
	maxDeviceUploads = 512       // of one device, so that one cannot take all places
	maxQuestions     = 256       // decisions and lists under way

	// Uploads of at most smallUpload events are gathered; a larger one is a batch by itself.
	smallUpload = 50
	maxGathered = 256                   // uploads in one transaction
	gatherWait  = 10 * time.Millisecond // how long a second batch gathers while another is being written
	parallel    = 4                     // transactions under way, gathered and large ones each

	// A batch of fewer than smallBatch uploads begins no sooner than smallBatchTime after the one before it.
	smallBatch     = 16
	smallBatchTime = 8 * time.Millisecond

	storeTime    = 15 * time.Second // for one transaction
	listPage     = 5000             // cards, and people, of one answer
	listLife     = 20 * time.Second // how old the list of people may be
	listTime     = 15 * time.Second
	questionTime = 5 * time.Second // for a decision or a list
	deadlocks    = 3               // tries of a transaction that deadlocked
	retryAfter   = 2               // seconds, told with 503 and 429

	keyLife     = 30 * time.Second // how long a known key is remembered; storing does not rely on it
	unknownLife = 5 * time.Second
	maxUnknown  = 10_000 // unknown keys remembered

	contactWait = 5 * time.Second // how often "last seen" is written
)

// Limits of clocks (contract, section 5; spec/door.md).
const (
	travelTime  = 10 * time.Second // a smaller skew is the time on the way
	flaggedSkew = 2 * time.Minute  // from here on the device is flagged
	wildSkew    = time.Hour        // from here on nobody is told of its events
	soonest     = 2 * time.Minute  // an event may seem to be this far in the future
	oldest      = 400 * 24 * time.Hour
)
