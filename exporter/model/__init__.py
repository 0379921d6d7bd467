"""What is handed from room to room: readings, OBIS codes, the calendar, points. Imports nothing of ours."""
