"""What every measurement needs: cases, opponents, clocks, records."""
