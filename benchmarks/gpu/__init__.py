"""What a GPU machine is asked in the minutes that it can be had."""
