package integer

import (
	"fmt"
	"strings"
)

// locate says where err happened, keeping one package prefix at the front.
func locate(err error, format string, arguments ...any) error {
	return fmt.Errorf("integer: %s: %s", fmt.Sprintf(format, arguments...), strings.TrimPrefix(err.Error(), "integer: "))
}
