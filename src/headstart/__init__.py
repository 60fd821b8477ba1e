"""headstart: transfer learning that proves whether it helped."""
