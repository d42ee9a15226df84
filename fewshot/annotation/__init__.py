"""What other systems need of a classifier: vectors and labels of many images, and records that are like one."""
