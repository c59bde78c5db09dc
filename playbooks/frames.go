package playbooks

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
)

// A message between Worker and its child is its length (4 bytes, big-endian),
// one byte that says what it is, and a body. A child is sent questions; to
// each it answers with an op, an error, or that it lacks the bundle, which is
// sent then and after which it answers again.
const (
	askNext    = 'q' // frame of a Rollout with the question's journal, then an `asked` as JSON
	giveBundle = 'b' // frame of the Bundle
	sayOp      = 'o' // frame of the Op
	sayError   = 'e' // an `answer` as JSON
	wantBundle = 'n' // nothing
)

// asked is what of a question isn't in its rollout.
type asked struct {
	Bundle string // its hash; "": there is none
	Params string
}

// maxMessage bounds what either side reads, in bytes.
const maxMessage = MaxBundle + 16<<20

func writeMessage(w io.Writer, kind byte, body []byte) error {
	head := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), kind)
	if _, err := w.Write(head); err != nil {
		return err
	}
	_, err := w.Write(body)
	return err
}

func writeFrame(w io.Writer, kind byte, m proto.Message, rest []byte) error {
	body, err := frame(m, rest)
	if err != nil {
		return err
	}
	return writeMessage(w, kind, body)
}

// readMessage reads one; io.EOF where there is none any more.
func readMessage(r *bufio.Reader) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxMessage {
		return 0, nil, fmt.Errorf("a message of %d MiB is too large", n>>20)
	}
	body = make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, fmt.Errorf("half a message: %w", err)
	}
	return head[4], body, nil
}
